package wire

import "fmt"

// A FieldError says which field of a frame is wrong. Servers and handlers use it to tell the sender what to mend.
type FieldError struct {
	Field string // path from the frame's root, such as "resourceId" or "data.instance.id"; "" means the frame itself
	Want  string // what belongs there, such as "a string"
	Got   string // what is there, such as "a number"; "" where nothing more can be said
}

func (e *FieldError) Error() string {
	where := "the event"
	if e.Field != "" {
		where = fmt.Sprintf("field %q", e.Field)
	}
	if e.Got == "" {
		return fmt.Sprintf("%s: want %s", where, e.Want)
	}
	return fmt.Sprintf("%s: want %s, got %s", where, e.Want, e.Got)
}
