package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/careen-project/careen/agent/api"
)

// plainInterval is the time between two lines of a pull that is not on a terminal.
const plainInterval = 5 * time.Second

// Progress shows a pull on standard error: on a terminal as a bar, elsewhere as a line
// every few seconds.
type Progress struct {
	c     *Console
	quiet bool
	drawn bool
	// last is the time of the last plain line, status the status in it.
	last   time.Time
	status string
}

// Progress returns a display of a pull. A quiet one prints nothing.
func (c *Console) Progress(quiet bool) *Progress { return &Progress{c: c, quiet: quiet} }

// Show shows the progress of a pull; nil is none.
func (p *Progress) Show(pull *api.PullProgress) {
	switch {
	case p.quiet || pull == nil:
	case p.c.live && pull.Message != "":
		p.draw(cut("pull: "+pull.Message, p.c.columns-1))
	case p.c.live:
		p.draw(bar(pull, p.c.columns-1))
	case pull.Message != "":
		p.print(pull.Status, "pull: "+Line(pull.Message))
	case pull.Total > 0 && (pull.Status != p.status || time.Since(p.last) >= plainInterval):
		p.print(pull.Status, plain(pull))
	}
}

func (p *Progress) draw(line string) {
	fmt.Fprintf(p.c.Err, "\r\x1b[K%s", line)
	p.drawn = true
}

func (p *Progress) print(status, line string) {
	p.status, p.last = status, time.Now()
	fmt.Fprintln(p.c.Err, line)
}

// Clear removes the bar before other output.
func (p *Progress) Clear() {
	if p.drawn {
		fmt.Fprint(p.c.Err, "\r\x1b[K")
		p.drawn = false
	}
}

// plain is the progress as a line: "pull: downloading 12.3 MB of 40.0 MB at 8.1 MB/s, 1/3 layers".
func plain(pull *api.PullProgress) string { return "pull: " + pull.Status + " " + amounts(pull) }

func amounts(pull *api.PullProgress) string {
	rate := ""
	if pull.Rate > 0 {
		rate = fmt.Sprintf(" at %s/s", Size(pull.Rate))
	}
	done := 0
	for _, layer := range pull.Layers {
		if layer.Status == "done" || layer.Status == "present" {
			done++
		}
	}
	return fmt.Sprintf("%s of %s%s, %d/%d layers", Size(pull.Done), Size(pull.Total), rate, done, len(pull.Layers))
}

// bar draws "pulling [=====>    ] 12.3 MB of 40.0 MB at 8.1 MB/s, 1/3 layers".
func bar(pull *api.PullProgress, columns int) string {
	if pull.Total <= 0 {
		return cut("pulling: "+pull.Status, columns)
	}
	text := " " + amounts(pull)
	width := columns - len("pulling []") - len(text)
	if width < 10 {
		return cut("pulling"+text, columns)
	}
	filled := min(width, int(float64(width)*float64(pull.Done)/float64(pull.Total)))
	gauge := strings.Repeat("=", filled)
	if filled < width {
		gauge += ">" + strings.Repeat(" ", width-filled-1)
	}
	return "pulling [" + gauge + "]" + text
}
