package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
)

// The positions of the indexes that makeTables gives its tables.
const (
	registerByAgent     = 0
	hostByAgent         = 0
	containerByHost     = 0
	containerByExternal = 1
)

// HostByUUID returns the host that reports itself with uuid, or ErrNotFound.
func (s *Store) HostByUUID(uuid string) (*Host, error) {
	return s.Hosts.known(digestKey(uuid))
}

// HostsOfAgent returns the hosts of an agent: usually one.
func (s *Store) HostsOfAgent(agentID string) []*Host { return s.Hosts.find(hostByAgent, agentID) }

// ContainersOfHost returns the containers of a host, removed ones included, by id.
func (s *Store) ContainersOfHost(hostID string) []*Container {
	return s.Containers.find(containerByHost, hostID)
}

// ContainerByExternalID returns the container of a host that has the engine's id, or ErrNotFound.
func (s *Store) ContainerByExternalID(hostID, externalID string) (*Container, error) {
	return s.Containers.findOne(containerByExternal, externalKey(hostID, externalID))
}

// ContainerByUUID returns the container with uuid, or ErrNotFound.
func (s *Store) ContainerByUUID(uuid string) (*Container, error) {
	return s.Containers.known(digestKey(uuid))
}

// RegisterByKey returns the register of a registration key, or ErrNotFound.
func (s *Store) RegisterByKey(ctx context.Context, key string) (*Register, error) {
	return s.Registers.byKey(ctx, keyDigest(key), false)
}

// keyDigest is how a registration key is kept: it is long and random, so it needs no salt, and must be found again.
func keyDigest(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}
