package main

import (
	"embed"
	"fmt"
	htmltemplate "html/template"
	"io"
	"strings"
	"text/template"
)

//go:embed templates
var templateFiles embed.FS

var (
	textTemplates = template.Must(template.New("").Option("missingkey=error").ParseFS(templateFiles, "templates/*.subject.tmpl", "templates/*.text.tmpl"))
	htmlTemplates = htmltemplate.Must(htmltemplate.New("").Option("missingkey=error").ParseFS(templateFiles, "templates/*.html.tmpl"))
)

// A Mail is ready to be sent.
type Mail struct {
	ID       string // of ours; comes back in the mail API's webhooks
	Customer string
	To       string
	Subject  string
	Text     string
	HTML     string
}

// Greeting is how a customer is addressed.
func (c *Customer) Greeting() string {
	if c.Name == "" {
		return "there"
	}
	return c.Name
}

// render makes the personal mail to a customer. An error won't go away by
// itself.
func render(m CustomerMail, c *Customer) (*Mail, error) {
	mail := &Mail{ID: m.ID(), Customer: m.Customer, To: c.Email}
	data := map[string]any{"Blast": m.Blast, "Customer": c, "Mail": mail.ID}
	for _, part := range []struct {
		name string
		to   *string
		run  func(w io.Writer, name string, data any) error
	}{
		{"subject", &mail.Subject, textTemplates.ExecuteTemplate},
		{"text", &mail.Text, textTemplates.ExecuteTemplate},
		{"html", &mail.HTML, htmlTemplates.ExecuteTemplate},
	} {
		var b strings.Builder
		if err := part.run(&b, m.Blast.Template+"."+part.name+".tmpl", data); err != nil {
			return nil, fmt.Errorf("template: %w", err)
		}
		*part.to = b.String()
	}
	// A name with a line break must not become a header.
	mail.Subject = strings.Join(strings.Fields(mail.Subject), " ")
	return mail, nil
}
