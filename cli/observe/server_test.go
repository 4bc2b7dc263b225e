package observe

import "testing"

// TestHealthOfANode is what a node without a server says of itself.
func TestHealthOfANode(t *testing.T) {
	for want, pods := range map[string]Pods{
		"server: none; engine: not asked yet":         {},
		"server: none; engine: cri: it is not there":  {Errors: map[string]string{"cri": "it is not there", "cri events": "nor are they"}},
		"server: none; engine: answers, 3 containers": {Ready: true, Containers: 3, Errors: map[string]string{"kubelet": "401"}},
	} {
		s := New(Config{Sources: func() Sources { return Sources{Standalone: true, Pods: func() Pods { return pods }} }})
		if h := s.Health(); h.String() != want || h.Ready != pods.Ready {
			t.Errorf("%v %q, want %q", h.Ready, h.String(), want)
		}
	}
}
