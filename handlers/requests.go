package handlers

import (
	"github.com/droverhq/drover/runtime"
)

// processData is what the server's process wants beside the resource.
type processData struct {
	NoOp    bool   `json:"containerNoOpEvent"`
	Timeout *int32 `json:"timeout"` // seconds
}

// instanceRequest is the data of compute.instance.activate, deactivate and remove.
type instanceRequest struct {
	Map struct {
		Instance *instance `json:"instance"`
	} `json:"instanceHostMap" path:"hidden"`
	ProcessData processData `json:"processData"`
}

// check returns the instance, which must be identifiable.
func (r *instanceRequest) check() (*instance, error) {
	in := r.Map.Instance
	if in == nil {
		return nil, invalid("instance", "missing")
	}
	if in.UUID == "" && in.ExternalID == "" {
		return nil, invalid("instance.uuid", "missing")
	}
	if t := r.ProcessData.Timeout; t != nil && *t < 0 {
		return nil, invalid("processData.timeout", "number out of range")
	}
	return in, nil
}

// forceStopRequest is the data of compute.instance.force.stop.
type forceStopRequest struct {
	Stop struct {
		ID string `json:"id"`
	} `json:"instanceForceStop"`
}

// inspectRequest is the data of compute.instance.inspect.
type inspectRequest struct {
	Inspect struct {
		ID   string `json:"id"`
		Name string `json:"name"`
	} `json:"instanceInspect"`
}

// pullRequest is the data of compute.instance.pull.
type pullRequest struct {
	Pull struct {
		Image    *image  `json:"image"`
		Mode     string  `json:"mode"`
		Complete bool    `json:"complete"`
		Tag      *string `json:"tag"`
	} `json:"instancePull"`
}

// imageRequest is the data of storage.image.activate.
type imageRequest struct {
	Map struct {
		Image *image `json:"image"`
	} `json:"imageStoragePoolMap" path:"hidden"`
	ProcessData processData `json:"processData"`
}

// image is an image as the server knows it.
type image struct {
	Name string `json:"name"`
	Data struct {
		Fields struct {
			Build *build `json:"build"`
		} `json:"fields"`
		DockerImage struct {
			FullName string `json:"fullName"`
			Server   string `json:"server"`
		} `json:"dockerImage"`
	} `json:"data"`
	Credential  *credential `json:"registryCredential"`
	ProcessData processData `json:"processData"`
}

// build says how to make an image.
type build struct {
	Context string `json:"context"`
	Remote  string `json:"remote"`
	Tag     string `json:"tag"`
}

// credential is a login to a registry.
type credential struct {
	User   string `json:"publicValue"`
	Secret string `json:"secretValue"`
	Data   struct {
		Fields struct {
			ServerAddress string `json:"serverAddress"`
			Email         string `json:"email"`
		} `json:"fields"`
	} `json:"data"`
}

// auth returns the credential in the engine's terms, nil if it is not complete.
func (c *credential) auth() *runtime.RegistryAuth {
	if c == nil || c.User == "" || c.Secret == "" {
		return nil
	}
	server := c.Data.Fields.ServerAddress
	if server == "https://docker.io" {
		server = "https://index.docker.io"
	}
	return &runtime.RegistryAuth{
		Username: c.User, Password: c.Secret, Email: c.Data.Fields.Email, ServerAddress: server,
	}
}

// volumeRequest is the data of storage.volume.activate and remove.
type volumeRequest struct {
	Map struct {
		Volume *volume `json:"volume"`
	} `json:"volumeStoragePoolMap" path:"hidden"`
}

// volume is a volume as the server knows it.
type volume struct {
	Name         string    `json:"name"`
	URI          string    `json:"uri"`
	DeviceNumber *int      `json:"deviceNumber"`
	Instance     *instance `json:"instance"`
	Data         struct {
		Fields struct {
			Driver     string            `json:"driver"`
			Options    map[string]string `json:"driverOpts"`
			IsHostPath bool              `json:"isHostPath"`
		} `json:"fields"`
	} `json:"data"`
}

// configRequest is the data of config.update.
type configRequest struct {
	Items []struct {
		Name string `json:"name"`
	} `json:"items"`
}
