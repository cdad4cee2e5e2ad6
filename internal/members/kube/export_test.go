package kube

// Expand is for tests of its rules alone.
var Expand = expand
