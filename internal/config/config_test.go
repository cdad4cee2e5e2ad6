package config_test

import (
	"testing"

	"github.com/etcd-backupd/backupd/internal/config"
)

const minimal = `repositories: {main: {url: 'file:///backups'}}
clusters:
- {name: prod, endpoints: ['127.0.0.1:2379'], snapshot: {schedule: '@hourly'}}`

func noEnvironment(string) (string, bool) { return "", false }

func parse(t *testing.T, text string, env map[string]string) (*config.Config, error) {
	t.Helper()
	return config.Parse("test.yaml", []byte(text),
		func(name string) (string, bool) { v, ok := env[name]; return v, ok })
}
