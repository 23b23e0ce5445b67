package pubsub

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	gcp "cloud.google.com/go/pubsub/v2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// slowClients need a minute to make a client, and then fail with err.
func slowClients(t *testing.T, err error) (*clients, *int) {
	t.Helper()
	made := 0
	return &clients{dial: func(ctx context.Context) (*gcp.Client, error) {
		made++
		time.Sleep(time.Minute)
		if err != nil {
			return nil, err
		}
		return gcp.NewClient(ctx, "project", option.WithEndpoint("passthrough:///nobody"), option.WithoutAuthentication(),
			option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())))
	}}, &made
}

// idle reports that there's no client, and none being made.
func (c *clients) idle() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.client == nil && c.dialing == nil
}

func useFor(t *testing.T, c *clients, patience time.Duration) (func() error, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, done, err := c.use(ctx)
	return done, err
}

func TestWhoWaitsForAClientWaitsNoLongerThanItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, made := slowClients(t, nil)
		begun := time.Now()
		var wg sync.WaitGroup
		wg.Go(func() {
			done, err := useFor(t, c, 2*time.Minute)
			if assert.NoError(t, err) {
				assert.NoError(t, done())
			}
		})
		_, err := useFor(t, c, time.Second)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, time.Second, time.Since(begun))
		wg.Wait()
		assert.Equal(t, time.Minute, time.Since(begun), "the other isn't disturbed")
		assert.Equal(t, 1, *made, "one for both")
		assert.True(t, c.idle(), "nobody uses it any more")
	})
}

func TestAClientThatNobodyWaitsForAnyMoreIsClosed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // ends only when no goroutine of the client is left
		c, _ := slowClients(t, nil)
		_, err := useFor(t, c, time.Second)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		time.Sleep(2 * time.Minute)
		assert.True(t, c.idle())
	})
}

func TestAClientThatCouldNotBeMadeIsTriedAgainByTheNext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		failed := errors.New("no credentials")
		c, made := slowClients(t, failed)
		for n := range 2 {
			_, err := useFor(t, c, time.Hour)
			require.ErrorIs(t, err, failed)
			assert.Equal(t, n+1, *made)
		}
	})
}
