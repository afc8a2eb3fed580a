package main

import (
	"fmt"
	"strings"
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
	// Growth is the last time over the first, divided by how much more there was:
	// up to 1 is linear or better.
	Growth float64
}

// scale measures how the time of a pull grows. The images of a curve differ in
// one thing only, so a curve that bends upwards names its cause.
func (b *bench) scale() ([]curve, error) {
	var curves []curve
	for _, measure := range []func() ([]curve, error){b.scaleImage, b.scaleTogether, b.scaleRegistry} {
		more, err := measure()
		if err != nil {
			return nil, err
		}
		curves = append(curves, more...)
	}
	for i := range curves {
		c := &curves[i]
		first, last := c.Points[0], c.Points[len(c.Points)-1]
		c.Growth = (last.Seconds / first.Seconds) / (float64(last.X) / float64(first.X))
		var times []string
		for _, p := range c.Points {
			times = append(times, fmt.Sprintf("%d: %s", p.X, figure(p.Seconds)))
		}
		b.table.add(line{What: "pull by " + c.Name + ", s: " + strings.Join(times, ", "), Careen: []float64{c.Growth}, With: "growth, 1 is linear", Limit: 1.1})
	}
	return curves, drawCurves(b.svg, curves)
}

var families = []struct {
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
	{"MB", "MB", []int64{10, 100, 1000}, func(x int64) shape {
		return shape{Layers: 2, Files: 500, Bytes: x << 20}
	}},
	{"MB of zeros", "MB", []int64{100, 1000, 4000}, func(x int64) shape {
		return shape{Layers: 1, Files: 10, Bytes: x << 20, Empty: true}
	}},
}

// imageName is the repository of a curve's image: these are lower-case.
func imageName(family string, x int64) string {
	return strings.ToLower(strings.ReplaceAll(fmt.Sprintf("%s%d", family, x), " ", "-"))
}

func (b *bench) scaleImage() (curves []curve, err error) {
	for _, family := range families {
		c := curve{Name: family.name, Unit: family.unit}
		xs := family.xs
		if b.short {
			xs = xs[:len(xs)-1]
		}
		for _, x := range xs {
			s := family.shape(x)
			s.Name = imageName(family.name, x)
			if err := b.need(s); err != nil {
				return nil, err
			}
			seconds, err := b.pullTime(nil, s.Name)
			if err != nil {
				return nil, err
			}
			c.Points = append(c.Points, point{x, seconds})
		}
		curves = append(curves, c)
	}
	return curves, nil
}

// scaleTogether pulls different images at once that have all but a small layer in
// common.
func (b *bench) scaleTogether() ([]curve, error) {
	c := curve{Name: "images at once that share layers", Unit: "images"}
	var names []string
	for i := range 8 {
		s := shape{Name: fmt.Sprintf("shared%d", i+1), Layers: 4, Files: 3200, Bytes: 64 << 20, Own: i + 1}
		if err := b.need(s); err != nil {
			return nil, err
		}
		names = append(names, s.Name)
	}
	for _, n := range []int{1, 2, 4, 8} {
		seconds, err := b.pullTime(nil, names[:n]...)
		if err != nil {
			return nil, err
		}
		c.Points = append(c.Points, point{int64(n), seconds})
	}
	return []curve{c}, nil
}

// scaleRegistry pulls from slow registries.
func (b *bench) scaleRegistry() ([]curve, error) {
	var curves []curve
	for _, slow := range []struct {
		name, unit, image string
		xs                []int64
		registry          []string
	}{
		{"layers at 100 ms latency", "layers", "layers", []int64{1, 4, 16, 64}, []string{"-latency", "100ms"}},
		{"MB at 10 MB/s per connection", "MB", "MB", []int64{10, 100}, []string{"-rate", "10000000"}},
	} {
		c := curve{Name: slow.name, Unit: slow.unit}
		xs := slow.xs
		if b.short && len(xs) > 2 {
			xs = xs[:len(xs)-1]
		}
		for _, x := range xs {
			seconds, err := b.pullTime(slow.registry, imageName(slow.image, x))
			if err != nil {
				return nil, err
			}
			c.Points = append(c.Points, point{x, seconds})
		}
		curves = append(curves, c)
	}
	return curves, nil
}

// pullTime is the median of three times that pulls of images take, at once and
// into one empty store, from a registry with these options.
func (b *bench) pullTime(registry []string, images ...string) (float64, error) {
	var all []float64
	err := b.serving(func() error {
		for range min(3, b.rounds) {
			err := b.onNode(false, func(n *node) error {
				u, err := b.pullProcess(n, "pull", nil, images...)
				all = append(all, u.Seconds)
				return err
			})
			if err != nil {
				return fmt.Errorf("%s: %w", images[0], err)
			}
		}
		return nil
	}, registry...)
	if err != nil {
		return 0, err
	}
	return median(all), nil
}
