package config

import _ "embed"

// Example is a complete commented configuration.
//
//go:embed example.yaml
var Example []byte

// Schema is the JSON Schema of the file, made from the types of this package.
//
//go:embed schema.json
var Schema []byte
