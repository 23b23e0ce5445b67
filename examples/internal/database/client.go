package database

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"
)

// Client is the Database that another process serves. It may be used
// concurrently.
type Client struct {
	URL  string // of Memory.Handler, without a final slash
	HTTP *http.Client
}

// Swap implements Database.
func (c *Client) Swap(ctx context.Context, key, old, next string, ttl time.Duration) (string, error) {
	return c.send(ctx, change{Key: key, Old: old, New: next, TTL: ttl})
}

// Put implements Database.
func (c *Client) Put(ctx context.Context, key, value string, ttl time.Duration) error {
	_, err := c.send(ctx, change{Key: key, New: value, TTL: ttl, Force: true})
	return err
}

func (c *Client) send(ctx context.Context, what change) (was string, err error) {
	body, err := json.Marshal(what)
	if err != nil {
		return "", fmt.Errorf("database: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.URL+"/swap", bytes.NewReader(body))
	if err != nil {
		return "", fmt.Errorf("database: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.HTTP.Do(req)
	if err != nil {
		return "", fmt.Errorf("database: %w", err)
	}
	defer resp.Body.Close() //nolint:errcheck // it has been read
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return "", fmt.Errorf("database: %w", err)
	}
	var result struct {
		Was     string `json:"was"`
		Message string `json:"message"`
	}
	if err := json.Unmarshal(text, &result); err != nil {
		return "", fmt.Errorf("database: status %d: %w", resp.StatusCode, err)
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("database: status %d: %s", resp.StatusCode, result.Message)
	}
	return result.Was, nil
}
