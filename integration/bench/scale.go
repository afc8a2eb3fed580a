package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// point is one measurement of a curve.
type point struct {
	X       int64
	Seconds float64
}

// curve is pull time against one property of an image or a registry.
type curve struct {
	Name   string
	Unit   string
	Points []point
}

// scale measures how the time of a pull grows. Each image differs from the next
// in one thing only, so a curve that bends upwards names its cause.
func (b *bench) scale() ([]curve, error) {
	var curves []curve
	for _, family := range []struct {
		name, unit string
		xs         []int64
		shape      func(x int64) shape
	}{
		{"layers", "layers", []int64{1, 4, 16, 64}, func(x int64) shape {
			return shape{Layers: int(x), Files: 3200, Bytes: 64 << 20}
		}},
		{"files", "files", []int64{1_000, 10_000, 100_000}, func(x int64) shape {
			return shape{Layers: 2, Files: int(x), Bytes: 100 << 20}
		}},
		{"bytes", "MB", []int64{10, 100, 1000}, func(x int64) shape {
			return shape{Layers: 2, Files: 500, Bytes: x << 20}
		}},
		{"zeros", "MB", []int64{100, 1000, 4000}, func(x int64) shape {
			return shape{Layers: 1, Files: 10, Bytes: x << 20, Empty: true}
		}},
	} {
		c := curve{Name: family.name, Unit: family.unit}
		for _, x := range family.xs {
			s := family.shape(x)
			s.Name = fmt.Sprintf("%s%d", family.name, x)
			if err := generate(filepath.Join(b.work, s.Name), s); err != nil {
				return nil, err
			}
			seconds, err := b.pullTime(s.Name, 1)
			if err != nil {
				return nil, err
			}
			c.Points = append(c.Points, point{x, seconds})
		}
		curves = append(curves, c)
	}
	more, err := b.scaleRegistry()
	if err != nil {
		return nil, err
	}
	curves = append(curves, more...)
	printCurves(curves)
	return curves, drawCurves(filepath.Join(filepath.Dir(b.out), "scale.svg"), curves)
}

// scaleRegistry measures pulls at the same time, and slow registries.
func (b *bench) scaleRegistry() ([]curve, error) {
	together := curve{Name: "pulls at once of one image", Unit: "pulls"}
	for _, n := range []int{1, 2, 4, 8} {
		seconds, err := b.pullTime("layers4", n)
		if err != nil {
			return nil, err
		}
		together.Points = append(together.Points, point{int64(n), seconds})
	}
	slow := curve{Name: "layers at 100 ms latency", Unit: "layers"}
	for _, n := range []int64{1, 4, 16, 64} {
		seconds, err := b.pullTime(fmt.Sprintf("layers%d", n), 1, "-latency", "100ms")
		if err != nil {
			return nil, err
		}
		slow.Points = append(slow.Points, point{n, seconds})
	}
	narrow := curve{Name: "MB at 10 MB/s per connection", Unit: "MB"}
	for _, n := range []int64{10, 100} {
		seconds, err := b.pullTime(fmt.Sprintf("bytes%d", n), 1, "-rate", "10000000")
		if err != nil {
			return nil, err
		}
		narrow.Points = append(narrow.Points, point{n, seconds})
	}
	return []curve{together, slow, narrow}, nil
}

// pullTime is the median of three times that n pulls of an image take, at once
// and into one store, from a registry with these options.
func (b *bench) pullTime(image string, n int, registry ...string) (float64, error) {
	if err := b.serveImages(registry...); err != nil {
		return 0, err
	}
	defer b.stop()
	var all []float64
	for range 3 {
		err := b.onTmpfs(func(dir string) error {
			r, err := b.careenTimes(image, dir, n)
			all = append(all, r.Seconds)
			return err
		})
		if err != nil {
			return 0, fmt.Errorf("%s: %w", image, err)
		}
	}
	return median(all), nil
}

func printCurves(curves []curve) {
	for _, c := range curves {
		fmt.Printf("%-30s", c.Name)
		for _, p := range c.Points {
			fmt.Printf("  %d: %.2fs", p.X, p.Seconds)
		}
		fmt.Printf("  growth %s\n", growth(c.Points))
	}
}

// growth compares the last point with a straight line through zero and the
// first: up to 1 is linear or better.
func growth(points []point) string {
	first, last := points[0], points[len(points)-1]
	ratio := (last.Seconds / first.Seconds) / (float64(last.X) / float64(first.X))
	if ratio <= 1.1 {
		return fmt.Sprintf("%.2f (linear or better)", ratio)
	}
	return fmt.Sprintf("%.2f (worse than linear)", ratio)
}

// drawCurves writes one small chart per curve into an SVG file.
func drawCurves(file string, curves []curve) error {
	const width, height, pad = 260, 170, 34
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	fmt.Fprintf(f, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="11">`+"\n",
		width*2, height*((len(curves)+1)/2))
	for i, c := range curves {
		x0, y0 := i%2*width, i/2*height
		last := c.Points[len(c.Points)-1]
		top := slices.MaxFunc(c.Points, func(a, b point) int { return int((a.Seconds - b.Seconds) * 1e6) }).Seconds
		fmt.Fprintf(f, `<text x="%d" y="%d" font-weight="bold">%s</text>`+"\n", x0+pad, y0+14, c.Name)
		fmt.Fprintf(f, `<text x="%d" y="%d" text-anchor="end">%.1fs</text>`+"\n", x0+pad-3, y0+28, top)
		fmt.Fprintf(f, `<text x="%d" y="%d" text-anchor="end">%d %s</text>`+"\n", x0+width-8, y0+height-8, last.X, c.Unit)
		fmt.Fprintf(f, `<path d="M%d %dV%dH%d" fill="none" stroke="gray"/>`+"\n", x0+pad, y0+20, y0+height-22, x0+width-8)
		fmt.Fprint(f, `<polyline fill="none" stroke="steelblue" stroke-width="2" points="`)
		for _, p := range c.Points {
			x := float64(x0+pad) + float64(p.X)/float64(last.X)*float64(width-pad-10)
			y := float64(y0+height-22) - p.Seconds/top*float64(height-46)
			fmt.Fprintf(f, "%.1f,%.1f ", x, y)
		}
		fmt.Fprintln(f, `"/>`)
	}
	fmt.Fprintln(f, "</svg>")
	return f.Close()
}

// pullAll runs n pulls at once and returns the first error.
func pullAll(n int, one func(i int) error) (time.Duration, error) {
	var group sync.WaitGroup
	errs := make([]error, n)
	start := time.Now()
	for i := range n {
		group.Go(func() { errs[i] = one(i) })
	}
	group.Wait()
	for _, err := range errs {
		if err != nil {
			return 0, err
		}
	}
	return time.Since(start), nil
}
