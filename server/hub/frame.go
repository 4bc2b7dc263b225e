package hub

import (
	"crypto/rand"
	"encoding/binary"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
)

// replyPrefix begins the names that agents may publish.
const replyPrefix = "reply."

// replyName makes the name that an agent answers to: "reply." and a random positive number, like Rancher's. Its upper
// half is the replica that waits, so that any other replica knows where a reply belongs.
func replyName(replica uint32) string {
	var b [4]byte
	_, _ = rand.Read(b[:])
	n := uint64(replica&0x7fffffff)<<32 | uint64(binary.BigEndian.Uint32(b[:]))
	return replyPrefix + strconv.FormatUint(n, 10)
}

// replyReplica returns the replica in a reply's name, or 0.
func replyReplica(name string) uint32 {
	n, err := strconv.ParseUint(strings.TrimPrefix(name, replyPrefix), 10, 63)
	if err != nil {
		return 0
	}
	return uint32(n >> 32)
}

// replicaName is how a replica is called in the store and in subjects.
func replicaName(replica uint32) string { return strconv.FormatUint(uint64(replica), 16) }

// replicaNumber is the opposite of replicaName; 0 for what is no name.
func replicaNumber(name string) uint32 {
	n, err := strconv.ParseUint(name, 16, 32)
	if err != nil {
		return 0
	}
	return uint32(n)
}

// appendKeepAlive appends the frame that Rancher's servers write every five seconds: a ping that nobody answers.
func appendKeepAlive(dst []byte, now time.Time) []byte {
	dst = append(dst, `{"id":"`...)
	dst = append(dst, uuid.NewString()...)
	dst = append(dst, `","name":"ping","resourceId":null,"resourceType":null,"data":{"options":{},"resources":[]},"time":`...)
	dst = strconv.AppendInt(dst, now.UnixMilli(), 10)
	return append(dst, '}')
}

// pingOptions are what a ping asks the agent to report.
type pingOptions struct{ resources, instances, stats bool }

// everyPing returns the options of an agent's n-th ping; the first is number 0 and asks for everything.
func everyPing(n int) pingOptions {
	return pingOptions{instances: n%3 == 0, resources: n%12 == 0, stats: n%24 == 0}
}

// appendPing appends the application ping. agentID needs no escaping: we made it.
func appendPing(dst []byte, id uuid.UUID, agentID, replyTo string, o pingOptions, now time.Time, timeout time.Duration) []byte {
	dst = append(dst, `{"id":"`...)
	dst = append(dst, id.String()...)
	dst = append(dst, `","name":"ping","replyTo":"`...)
	dst = append(dst, replyTo...)
	dst = append(dst, `","resourceId":"`...)
	dst = append(dst, agentID...)
	dst = append(dst, `","resourceType":"agent","data":{"options":{`...)
	start := len(dst)
	option := func(name string, on bool) {
		if !on {
			return
		}
		if len(dst) > start {
			dst = append(dst, ',')
		}
		dst = append(dst, '"')
		dst = append(dst, name...)
		dst = append(dst, `":true`...)
	}
	option("resources", o.resources)
	option("instances", o.instances)
	option("stats", o.stats)
	dst = append(dst, `},"resources":[]},"time":`...)
	dst = strconv.AppendInt(dst, now.UnixMilli(), 10)
	dst = append(dst, `,"timeoutMillis":`...)
	dst = strconv.AppendInt(dst, timeout.Milliseconds(), 10)
	return append(dst, '}')
}
