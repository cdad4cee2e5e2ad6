// Package recovery shows disasters and the way out of them, from the first command to the
// last, with real servers.
package recovery
