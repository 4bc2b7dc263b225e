package cli

// ImagesConfig is what a host allows the events of images.
type ImagesConfig struct {
	ImportRoots []string // folders that root file systems are imported from; none: importing is refused
	ExportRoots []string // folders that images are saved into; none: saving is refused
	TempDir     string   // takes an image while it is pushed through the agent; "" is the system's
}

// imageKeys are the keys of the events of images.
func imageKeys() []configKey {
	return []configKey{
		key("app.images.import-roots", "folders of the host that images may be imported, loaded and built from; empty: none",
			dirs(func(c *Config) *[]string { return &c.Images.ImportRoots })).vars("DROVER_IMPORT_ROOTS").of(kindList),
		key("app.images.export-roots", "folders of the host that image.save may make files in; empty: none",
			dirs(func(c *Config) *[]string { return &c.Images.ExportRoots })).vars("DROVER_EXPORT_ROOTS").of(kindList),
		key("app.images.temp-dir", "takes an image while it is pushed through the agent; empty: the system's",
			dir(func(c *Config) *string { return &c.Images.TempDir })).vars("DROVER_IMAGE_TEMP_DIR"),
	}
}
