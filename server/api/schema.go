package api

import (
	"maps"
	"slices"
	"strings"
)

// The kinds of accounts. Each sees its own schemas: types, methods and actions that it may use, and no others.
const (
	kindAdmin        = "admin"        // everything
	kindUser         = "user"         // containers and pulls on hosts; no keys, tokens or settings
	kindAgent        = "agent"        // one host agent
	kindRegistration = "registration" // the bearer of a registration token
)

// A field is one field of a type. Its type is one of Rancher's: string, password, int, float, boolean, date, enum,
// json, reference[x], array[x], map[x], or the name of another type.
type field struct {
	Type     string   `json:"type"`
	Nullable bool     `json:"nullable"`
	Create   bool     `json:"create"`
	Update   bool     `json:"update"`
	Required bool     `json:"required,omitempty"`
	Default  any      `json:"default,omitempty"`
	Options  []string `json:"options,omitempty"`
	Min      *int64   `json:"min,omitempty"`
	Max      *int64   `json:"max,omitempty"`
}

type action struct {
	Input  string `json:"input,omitempty"`
	Output string `json:"output,omitempty"`
}

type filter struct {
	Modifiers []string `json:"modifiers"`
}

// schema is one type as the API describes it.
type schema struct {
	ID                string            `json:"id"`
	Type              string            `json:"type"`
	Links             map[string]string `json:"links"`
	Actions           map[string]string `json:"actions"`
	PluralName        string            `json:"pluralName"`
	ResourceMethods   []string          `json:"resourceMethods"`
	CollectionMethods []string          `json:"collectionMethods"`
	ResourceFields    map[string]field  `json:"resourceFields"`
	ResourceActions   map[string]action `json:"resourceActions"`
	CollectionActions map[string]action `json:"collectionActions"`
	CollectionFields  map[string]field  `json:"collectionFields"`
	CollectionFilters map[string]filter `json:"collectionFilters"`
	IncludeableLinks  []string          `json:"includeableLinks"`
}

// A grant is what one kind of account may do with a type.
type grant struct {
	collection []string // methods
	resource   []string // methods
	actions    []string // names
}

// A typeDef is one type of the API: its description and who may do what.
type typeDef struct {
	id, plural, base string
	fields           map[string]field
	actions          map[string]action
	grants           map[string]grant
}

// modifiers are those of a filter, by the type of its field.
func modifiers(fieldType string) []string {
	switch fieldType {
	case "int", "date", "float":
		return []string{"eq", "ne", "lt", "lte", "gt", "gte", "null", "notnull"}
	case "boolean":
		return []string{"eq", "ne", "null", "notnull"}
	default:
		return []string{"eq", "ne", "prefix", "like", "notlike", "null", "notnull"}
	}
}

func filterable(f field) bool {
	return !strings.ContainsRune(f.Type, '[') || strings.HasPrefix(f.Type, "reference[")
}

// schemaFor describes d to an account of that kind. It is false where the kind may not know the type.
func (d *typeDef) schemaFor(kind, prefix string) (schema, bool) {
	g, ok := d.grants[kind]
	if !ok {
		return schema{}, false
	}
	s := schema{
		ID: d.id, Type: "schema", PluralName: d.plural,
		Links:           map[string]string{"self": prefix + "/schemas/" + d.id},
		Actions:         map[string]string{},
		ResourceMethods: orEmpty(g.resource), CollectionMethods: orEmpty(g.collection),
		ResourceFields: d.fields, ResourceActions: map[string]action{}, CollectionActions: map[string]action{},
		CollectionFields: map[string]field{}, CollectionFilters: map[string]filter{}, IncludeableLinks: []string{},
	}
	if len(g.collection) > 0 || len(g.resource) > 0 {
		s.Links["collection"] = prefix + "/" + strings.ToLower(d.plural)
	}
	for _, name := range g.actions {
		s.ResourceActions[name] = d.actions[name]
	}
	if slices.Contains(g.collection, "GET") {
		for name, f := range d.fields {
			if filterable(f) {
				s.CollectionFilters[name] = filter{Modifiers: modifiers(f.Type)}
			}
		}
	}
	return s, true
}

func orEmpty(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

// A fieldSet builds the fields of a type.
type fieldSet map[string]field

// read adds fields that only the server sets: "name type" pairs.
func (fs fieldSet) read(pairs ...string) fieldSet { return fs.add(field{Nullable: true}, pairs) }

// create adds fields that a creator may set.
func (fs fieldSet) create(pairs ...string) fieldSet {
	return fs.add(field{Nullable: true, Create: true}, pairs)
}

// update adds fields that may be set at any time.
func (fs fieldSet) update(pairs ...string) fieldSet {
	return fs.add(field{Nullable: true, Create: true, Update: true}, pairs)
}

// required adds fields that a creator must set.
func (fs fieldSet) required(pairs ...string) fieldSet {
	return fs.add(field{Create: true, Required: true}, pairs)
}

func (fs fieldSet) add(proto field, pairs []string) fieldSet {
	for _, p := range pairs {
		name, typ, _ := strings.Cut(p, " ")
		proto.Type = typ
		fs[name] = proto
	}
	return fs
}

// enum adds a field that takes one of some values; the first is the default.
func (fs fieldSet) enum(name string, options ...string) fieldSet {
	fs[name] = field{Type: "enum", Nullable: true, Create: true, Options: options, Default: options[0]}
	return fs
}

// common adds what every stored resource has.
func (fs fieldSet) common() fieldSet {
	return fs.read("id string", "type string", "baseType string", "uuid string", "kind string", "state enum", "created date",
		"removed date", "accountId reference[account]", "transitioning enum", "transitioningMessage string",
		"transitioningProgress int", "data map[json]").update("name string", "description string")
}

func (fs fieldSet) without(names ...string) fieldSet {
	out := maps.Clone(fs)
	for _, n := range names {
		delete(out, n)
	}
	return out
}
