package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/careen-project/careen/agent/api"
)

// progress shows a pull on standard error: a bar that is drawn again where that
// is possible, a line now and then elsewhere, so that a log of it stays short.
type progress struct {
	c     *console
	quiet bool
	drawn bool
	last  time.Time
	// status is the last one that was said in plain lines.
	status string
}

// plainInterval is the time between two lines of a pull that is not on a terminal.
const plainInterval = 5 * time.Second

func (p *progress) show(pull *api.PullProgress) {
	if p.quiet || pull == nil {
		return
	}
	if pull.Message != "" {
		p.waits(pull)
		return
	}
	if p.c.live {
		fmt.Fprintf(p.c.err, "\r\x1b[K%s", bar(pull, p.c.columns-1))
		p.drawn = true
		return
	}
	// What is present or still being looked up is not worth a line.
	if pull.Total <= 0 || pull.Status == p.status && time.Since(p.last) < plainInterval {
		return
	}
	p.status, p.last = pull.Status, time.Now()
	fmt.Fprintln(p.c.err, plain(pull))
}

// waits shows what a pull waits for.
func (p *progress) waits(pull *api.PullProgress) {
	text := "pull: " + clean(pull.Message)
	if p.c.live {
		fmt.Fprintf(p.c.err, "\r\x1b[K%s", cut(text, p.c.columns-1))
		p.drawn = true
		return
	}
	p.status, p.last = pull.Status, time.Now()
	fmt.Fprintln(p.c.err, text)
}

// clear takes the bar away before other output.
func (p *progress) clear() {
	if p.drawn {
		fmt.Fprint(p.c.err, "\r\x1b[K")
		p.drawn = false
	}
}

func plain(pull *api.PullProgress) string {
	return fmt.Sprintf("pull: %s %s of %s%s, %s", pull.Status, bytesText(pull.Done), bytesText(pull.Total), rateText(pull), layersText(pull))
}

func rateText(pull *api.PullProgress) string {
	if pull.Rate <= 0 {
		return ""
	}
	return fmt.Sprintf(" at %s/s", bytesText(pull.Rate))
}

func layersText(pull *api.PullProgress) string {
	done := 0
	for _, layer := range pull.Layers {
		if layer.Status == "done" || layer.Status == "present" {
			done++
		}
	}
	return fmt.Sprintf("%d/%d layers", done, len(pull.Layers))
}

// bar draws "pulling [=====>    ] 12.3 MB of 40.0 MB at 8.1 MB/s, 1/3 layers".
func bar(pull *api.PullProgress, columns int) string {
	if pull.Total <= 0 {
		return "pulling: " + pull.Status
	}
	text := " " + strings.TrimPrefix(plain(pull), "pull: "+pull.Status+" ")
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
