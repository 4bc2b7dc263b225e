// Package utils is the parent of a few leaf packages that know nothing of Drover: they use the standard library alone
// and each is named by what it does. No code lives here itself.
package utils
