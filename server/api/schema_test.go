package api

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files")

// schemasOf answers GET /{version}/schemas for a kind of account.
func schemasOf(t *testing.T, kind, version string) []byte {
	t.Helper()
	rec := httptest.NewRecorder()
	q := &request{
		h: typesOnly(), w: &recorder{ResponseWriter: rec}, r: httptest.NewRequest(http.MethodGet, "/", nil),
		target: &target{base: "http://server:8080", version: version, segments: []string{"schemas"}}, who: &identity{kind: kind},
	}
	if err := q.serveSchemas(nil); err != nil {
		t.Fatal(err)
	}
	return rec.Body.Bytes()
}

// golden compares text with a file.
func golden(t *testing.T, file string, got []byte) {
	t.Helper()
	file = filepath.Join("testdata", file)
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs: run with -update and read the difference", file)
	}
}

// Each kind of account's types, one line for what can be done with a type and one for each field.
func TestSchemasByKind(t *testing.T) {
	for _, kind := range []string{kindAdmin, kindUser, kindAgent, kindRegistration} {
		var list struct{ Data []schema }
		if err := json.Unmarshal(schemasOf(t, kind, v2), &list); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		for _, s := range list.Data {
			actions := slices.Sorted(maps.Keys(s.ResourceActions))
			fmt.Fprintf(&out, "%s (%s): collection %v, resource %v, actions %v\n", s.ID, s.PluralName, s.CollectionMethods, s.ResourceMethods, actions)
			for _, name := range slices.Sorted(maps.Keys(s.ResourceFields)) {
				f := s.ResourceFields[name]
				fmt.Fprintf(&out, "  %s %s create=%t update=%t required=%t %v\n", name, f.Type, f.Create, f.Update, f.Required, f.Options)
			}
		}
		golden(t, "schemas_"+kind+".txt", out.Bytes())
	}
}

// The form of the whole answer, to the letter.
func TestSchemasForm(t *testing.T) {
	var got bytes.Buffer
	if err := json.Indent(&got, schemasOf(t, kindRegistration, v1), "", " "); err != nil {
		t.Fatal(err)
	}
	golden(t, "schemas_form.json", got.Bytes())
}

// What an original agent looks up in the schemas, on both versions.
func TestSchemasHaveWhatAgentsLookUp(t *testing.T) {
	for _, version := range []string{v1, v2} {
		var list struct{ Data []schema }
		if err := json.Unmarshal(schemasOf(t, kindAgent, version), &list); err != nil {
			t.Fatal(err)
		}
		found := map[string]schema{}
		for _, s := range list.Data {
			found[s.ID] = s
			if s.Links["self"] == "" || s.PluralName == "" || s.CollectionMethods == nil || s.ResourceMethods == nil {
				t.Errorf("%s is not complete: %+v", s.ID, s)
			}
		}
		for id, plural := range map[string]string{"publish": "publish", "hostApiProxyToken": "hostapiproxytokens", "containerEvent": "containerevents"} {
			s := found[id]
			if !slices.Contains(s.CollectionMethods, http.MethodPost) || s.Links["collection"] != "http://server:8080/"+version+"/"+plural {
				t.Errorf("%s %s: %v %v", version, id, s.CollectionMethods, s.Links)
			}
		}
		if s := found["subscribe"]; s.Links["collection"] != "http://server:8080/"+version+"/subscribe" {
			t.Errorf("subscribe: %v", s.Links)
		}
		if _, ok := found["account"]; ok {
			t.Error("an agent knows the type account: original agents take that for a sign that their keys are wrong")
		}
	}
}
