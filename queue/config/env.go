package config

import (
	"fmt"
	"strings"
)

// expand replaces ${NAME} and ${NAME:-default} in s, and $$ by a dollar sign.
// It works on one scalar after parsing, so that a value can't bring structure
// into the file. Everything that is wrong is returned, not just the first.
func expand(s string, lookup func(string) (string, bool)) (string, []string) {
	if !strings.Contains(s, "$") {
		return s, nil
	}
	var out strings.Builder
	var reasons []string
	for s != "" {
		before, rest, found := strings.Cut(s, "$")
		out.WriteString(before)
		if !found {
			break
		}
		switch {
		case strings.HasPrefix(rest, "$"):
			out.WriteByte('$')
			s = rest[1:]
		case strings.HasPrefix(rest, "{"):
			expr, after, closed := strings.Cut(rest[1:], "}")
			if !closed {
				return out.String(), append(reasons, "${ without a closing }")
			}
			value, reason := variable(expr, lookup)
			if reason != "" {
				reasons = append(reasons, reason)
			}
			out.WriteString(value)
			s = after
		default:
			reasons = append(reasons, "a dollar sign is written $$, and a variable ${NAME}")
			s = rest
		}
	}
	return out.String(), reasons
}

// variable is the value of NAME or NAME:-default. As in a shell, the default
// also stands in for an empty value.
func variable(expr string, lookup func(string) (string, bool)) (value, reason string) {
	name, fallback, hasDefault := strings.Cut(expr, ":-")
	if !variableName(name) {
		return "", fmt.Sprintf("${%s} isn't ${NAME} or ${NAME:-default}", expr)
	}
	if strings.Contains(fallback, "$") {
		return "", fmt.Sprintf("${%s}: a default is plain text, without a dollar sign", expr)
	}
	v, ok := lookup(name)
	switch {
	case ok && (v != "" || !hasDefault):
		return v, ""
	case hasDefault:
		return fallback, ""
	default:
		return "", fmt.Sprintf("the environment variable %s isn't set and has no default; write ${%s:-default}", name, name)
	}
}

func variableName(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', c == '_':
		case '0' <= c && c <= '9' && i > 0:
		default:
			return false
		}
	}
	return s != ""
}
