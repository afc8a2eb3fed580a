package main

import (
	"fmt"
	"os"
	"strings"
)

// The size of one chart, and what is around its axes, in pixels.
const (
	chartWidth, chartHeight              = 300, 190
	padLeft, padTop, padRight, padBottom = 42, 30, 16, 26
)

// drawCurves writes one small chart per curve into an SVG file, two in a row. Both
// axes begin at zero, so that linear growth is a straight line; the dashed one is
// where a linear growth from the first point would go.
func drawCurves(file string, curves []curve) error {
	var s strings.Builder
	fmt.Fprintf(&s, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="11">`+"\n",
		chartWidth*2, chartHeight*((len(curves)+1)/2))
	fmt.Fprintln(&s, `<rect width="100%" height="100%" fill="white"/>`)
	for i, c := range curves {
		drawChart(&s, i%2*chartWidth, i/2*chartHeight, c)
	}
	fmt.Fprintln(&s, "</svg>")
	return os.WriteFile(file, []byte(s.String()), 0o644)
}

func drawChart(s *strings.Builder, x0, y0 int, c curve) {
	first, last := c.Points[0], c.Points[len(c.Points)-1]
	top := 0.0
	for _, p := range c.Points {
		top = max(top, p.Seconds)
	}
	left, bottom := float64(x0+padLeft), float64(y0+chartHeight-padBottom)
	right, height := float64(x0+chartWidth-padRight), float64(chartHeight-padTop-padBottom)
	at := func(x int64, seconds float64) (float64, float64) {
		return left + float64(x)/float64(last.X)*(right-left), bottom - seconds/top*height
	}
	fmt.Fprintf(s, `<text x="%d" y="%d" font-weight="bold">%s</text>`+"\n", x0+padLeft, y0+16, c.Name)
	fmt.Fprintf(s, `<path d="M%.0f %dV%.0fH%.0f" fill="none" stroke="gray"/>`+"\n", left, y0+padTop-4, bottom, right)
	fmt.Fprintf(s, `<text x="%.0f" y="%d" text-anchor="end">%s s</text>`+"\n", left-4, y0+padTop+4, figure(top))
	fmt.Fprintf(s, `<text x="%.0f" y="%.0f" text-anchor="end">%d %s</text>`+"\n", right, bottom+15, last.X, c.Unit)
	fmt.Fprintf(s, `<text x="%.0f" y="%.0f">0</text>`+"\n", left, bottom+15)
	// The linear line ends at the right edge or at the top, whichever is first.
	end := float64(last.X)
	if limit := top / first.Seconds * float64(first.X); limit < end {
		end = limit
	}
	ex, ey := left+end/float64(last.X)*(right-left), bottom-first.Seconds*end/float64(first.X)/top*height
	fmt.Fprintf(s, `<path d="M%.1f %.1fL%.1f %.1f" stroke="silver" stroke-dasharray="4 3"/>`+"\n", left, bottom, ex, ey)
	var points strings.Builder
	for _, p := range c.Points {
		x, y := at(p.X, p.Seconds)
		fmt.Fprintf(&points, "%.1f,%.1f ", x, y)
		fmt.Fprintf(s, `<circle cx="%.1f" cy="%.1f" r="2.5" fill="steelblue"/>`+"\n", x, y)
	}
	fmt.Fprintf(s, `<polyline fill="none" stroke="steelblue" stroke-width="2" points="%s"/>`+"\n", strings.TrimSpace(points.String()))
}
