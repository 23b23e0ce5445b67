package sqs

import (
	"io"
	"net/http"

	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
)

// plainBodies sends requests whose bodies have no method WriteTo. The SDK closes
// its own body as soon as an answer begins, and net/http looks for that body's end
// once more after its last write. Where the answer is quick, or the machine busy,
// it finds it closed: smithy-go's WriteTo then fails with io.EOF, and net/http
// closes the connection with the answer on it, so that what a receive has brought
// is hidden until its lease ends. Its Read just ends.
type plainBodies struct{ awssqs.HTTPClient }

type plainBody struct{ io.ReadCloser }

func (c plainBodies) Do(r *http.Request) (*http.Response, error) {
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = plainBody{r.Body}
	}
	return c.HTTPClient.Do(r)
}
