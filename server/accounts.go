package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/droverhq/drover/server/api"
	"github.com/droverhq/drover/server/store"
)

// adminKeyName is the name of the key that the first start makes and that RotateAdminKey replaces.
const adminKeyName = "admin"

// ensureAccounts makes the accounts and the admin key at the first start. onKey, which may be nil, gets the key.
func ensureAccounts(ctx context.Context, st *store.Store, onKey func(string)) error {
	for _, a := range []store.Account{
		{Meta: store.Meta{ID: api.AdminAccount}, Name: "Default", Kind: "admin", State: store.StateActive},
		{Meta: store.Meta{ID: api.UserAccount}, Name: "Users", Kind: "user", State: store.StateActive},
	} {
		if _, err := st.Accounts.Create(ctx, a); err != nil && !errors.Is(err, store.ErrExists) {
			return err
		}
	}
	// Of replicas that start together for the first time, the one that can take this setting makes the key.
	first := store.Setting{Meta: store.Meta{ID: api.SettingBootstrapped}, Value: time.Now().UTC().Format(time.RFC3339)}
	if _, err := st.Settings.Create(ctx, first); errors.Is(err, store.ErrExists) {
		return nil
	} else if err != nil {
		return err
	}
	key, err := createAdminKey(ctx, st)
	if err != nil {
		// The next start shall try again.
		err = errors.Join(err, st.Settings.Delete(context.WithoutCancel(ctx), api.SettingBootstrapped, 0))
		return err
	}
	if onKey != nil {
		onKey(key)
	}
	return nil
}

func createAdminKey(ctx context.Context, st *store.Store) (string, error) {
	rec, secret, err := st.CreateAPIKey(ctx, api.AdminAccount, adminKeyName)
	if err != nil {
		return "", fmt.Errorf("make the admin key: %w", err)
	}
	return api.FormatKey(rec.AccessKey, secret), nil
}

func rotateAdminKey(ctx context.Context, st *store.Store) (string, error) {
	old := st.APIKeys.List()
	key, err := createAdminKey(ctx, st)
	if err != nil {
		return "", err
	}
	for _, k := range old {
		if k.AccountID != api.AdminAccount || k.Name != adminKeyName {
			continue
		}
		if err := st.APIKeys.Delete(ctx, k.ID, 0); err != nil && !errors.Is(err, store.ErrNotFound) {
			return "", fmt.Errorf("revoke the old admin key: %w", err)
		}
	}
	return key, nil
}
