package api

import (
	"testing"
	"time"

	"github.com/droverhq/drover/server/store"
	"github.com/droverhq/drover/server/store/storetest"
	"github.com/sirupsen/logrus/hooks/test"
)

func TestOldTokensArePurged(t *testing.T) {
	st := storetest.Open(t)
	log, _ := test.NewNullLogger()
	now := time.Now()
	h := &Handler{store: st, log: log, now: func() time.Time { return now }}
	old, young := now.Add(-2*keepTokens), now.Add(-time.Hour)
	keep := map[string]bool{}
	for name, tok := range map[string]store.RegistrationToken{
		"expired long ago": {Description: "no", Expires: old}, "revoked long ago": {Description: "no"},
		"expired": {Description: "yes", Expires: young}, "valid": {Description: "yes"},
	} {
		rec, _, err := st.CreateRegistrationToken(t.Context(), tok)
		if err != nil {
			t.Fatal(err)
		}
		if name == "revoked long ago" {
			_, err = st.RegistrationTokens.Update(t.Context(), rec.ID, func(t *store.RegistrationToken) error { t.Revoked = old; return nil })
			if err != nil {
				t.Fatal(err)
			}
		}
		keep[rec.ID] = tok.Description == "yes"
	}
	h.purgeTokens(t.Context())
	for id, want := range keep {
		if _, err := st.RegistrationTokens.Get(id); (err == nil) != want {
			t.Errorf("token %s: %v", id, err)
		}
	}
}

func TestTokensAreShownForAWhile(t *testing.T) {
	now := time.Now()
	s := newShownTokens(func() time.Time { return now })
	for i := range maxShown * 2 {
		s.add(string(rune(i+1000)), "t")
	}
	if len(s.tokens) > maxShown {
		t.Errorf("%d tokens are kept in memory", len(s.tokens))
	}
	s.add("1c1", "token")
	if s.get("1c1") != "token" {
		t.Error("a token is not shown right after it was made")
	}
	now = now.Add(showFor + time.Second)
	if s.get("1c1") != "" {
		t.Error("a token is shown for ever")
	}
}
