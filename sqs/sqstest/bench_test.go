package sqstest_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/anyqueue/anyqueue/sqs/sqstest"
)

// BenchmarkHTTP is what a message costs over HTTP, from its send to its delete,
// in batches of ten: 1 KiB and three attributes. The caller isn't the SDK, which
// takes several times as long as the server.
func BenchmarkHTTP(b *testing.B) {
	s := sqstest.New(nil)
	b.Cleanup(s.Close)
	endpoint, err := s.Start("")
	require.NoError(b, err)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	b.Cleanup(client.CloseIdleConnections)
	post := func(action, body string) []byte {
		r, err := http.NewRequestWithContext(b.Context(), http.MethodPost, endpoint, strings.NewReader(body))
		if err != nil {
			b.Error(err)
			return nil
		}
		r.Header.Set("X-Amz-Target", "AmazonSQS."+action)
		res, err := client.Do(r)
		if err != nil {
			b.Error(err)
			return nil
		}
		defer res.Body.Close()
		out, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != http.StatusOK {
			b.Errorf("%s: %s %s %v", action, res.Status, out, err)
		}
		return out
	}
	post("CreateQueue", `{"QueueName":"orders"}`)
	url := endpoint + "/000000000000/orders"
	var send bytes.Buffer
	fmt.Fprintf(&send, `{"QueueUrl":%q,"Entries":[`, url)
	for i := range 10 {
		if i > 0 {
			send.WriteByte(',')
		}
		fmt.Fprintf(&send, `{"Id":"%d","MessageBody":%q,"MessageAttributes":{"a":{"DataType":"String","StringValue":"one"},"b":{"DataType":"String","StringValue":"two"},"c":{"DataType":"Number","StringValue":"3"}}}`,
			i, strings.Repeat("x", 1024))
	}
	send.WriteString("]}")
	b.SetParallelism(8)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			post("SendMessageBatch", send.String())
			var got struct {
				Messages []struct{ ReceiptHandle string }
			}
			if err := json.Unmarshal(post("ReceiveMessage", fmt.Sprintf(`{"QueueUrl":%q,"MaxNumberOfMessages":10,"WaitTimeSeconds":20,"MessageAttributeNames":["All"],"MessageSystemAttributeNames":["All"]}`, url)), &got); err != nil {
				b.Error(err)
				return
			}
			var entries []string
			for i, m := range got.Messages {
				entries = append(entries, fmt.Sprintf(`{"Id":"%d","ReceiptHandle":%q}`, i, m.ReceiptHandle))
			}
			post("DeleteMessageBatch", fmt.Sprintf(`{"QueueUrl":%q,"Entries":[%s]}`, url, strings.Join(entries, ",")))
		}
	})
	b.ReportMetric(float64(b.N)*10/b.Elapsed().Seconds(), "msgs/s")
}
