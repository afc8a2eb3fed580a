package main

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// cold compares pulls into an empty store.
func (b *bench) cold() error {
	one := tool
	one.Name, one.Layers = "tool-one", 1
	zstd, plain := tool.format("zstd"), tool.format("none")
	if err := b.need(tool, zstd, plain, one); err != nil {
		return err
	}
	took, spent := map[string][]float64{}, map[string][]float64{}
	all := []struct {
		name, image string
		run         func(n *node, image string) (usage, error)
	}{
		{"careen", tool.Name, b.careenPull}, {"podman", tool.Name, b.podmanPull}, {"floor", tool.Name, b.floor},
		{"containerd", tool.Name, b.containerd}, {"zstd", zstd.Name, b.careenPull}, {"none", plain.Name, b.careenPull},
		{"one", one.Name, b.careenPull}, {"one floor", one.Name, b.floor},
	}
	err := b.serving(func() error {
		for round := range b.rounds {
			for i := range all {
				// The order turns with the rounds, so that none always comes after
				// the same other one.
				c := all[(i+round)%len(all)]
				err := b.onNode(false, func(n *node) error {
					u, err := c.run(n, c.image)
					took[c.name] = append(took[c.name], u.Seconds)
					spent[c.name] = append(spent[c.name], u.Processor)
					return err
				})
				if err != nil {
					return fmt.Errorf("%s: %w", c.name, err)
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	name := fmt.Sprintf("cold pull, %d layers, %d files, %d MB", tool.Layers, tool.Files, tool.Bytes>>20)
	add := func(what, careen, other string, limit float64) {
		b.table.add(line{What: what, Unit: "s", Careen: took[careen], Other: took[other], With: other, Limit: limit})
	}
	add(name, "careen", "podman", 0.30)
	add(name, "careen", "floor", 1.6)
	add(name, "careen", "containerd", 0)
	b.table.add(line{What: "processor time of that pull", Unit: "s", Careen: spent["careen"], Other: spent["podman"], With: "podman"})
	b.table.add(line{What: "processor time of that pull", Unit: "s", Careen: spent["careen"], Other: spent["floor"], With: "floor"})
	b.table.add(line{What: "processor time, layers in zstd", Unit: "s", Careen: spent["zstd"], Other: spent["careen"], With: "gzip", Limit: 1})
	b.table.add(line{What: "processor time, layers uncompressed", Unit: "s", Careen: spent["none"], Other: spent["careen"], With: "gzip", Limit: 1})
	b.table.add(line{What: "the same, layers in zstd", Unit: "s", Careen: took["zstd"], Other: took["careen"], With: "gzip", Limit: 1})
	b.table.add(line{What: "the same, layers uncompressed", Unit: "s", Careen: took["none"], Other: took["careen"], With: "gzip", Limit: 1})
	b.table.add(line{What: "the same in one layer", Unit: "s", Careen: took["one"], Other: took["one floor"], With: "floor"})
	return nil
}

const mib = 1 << 20

// memory measures what a pull and a run take, store and processes together.
func (b *bench) memory() error {
	if err := b.need(tool); err != nil {
		return err
	}
	var unpacked float64
	var peak, after, podmanPeak, podmanAfter, containerdPeak, containerdAfter []float64
	measure := func(peak, after *[]float64, work func(n *node) error) error {
		return b.onNode(true, func(n *node) error {
			if err := work(n); err != nil {
				return err
			}
			most, err := n.group.peak()
			if err != nil {
				return err
			}
			// Until those who end have ended; nothing waits for it.
			time.Sleep(time.Second)
			rest, err := n.group.now()
			*peak = append(*peak, float64(most)/mib)
			*after = append(*after, float64(rest)/mib)
			return err
		})
	}
	err := b.serving(func() error {
		err := b.onNode(false, func(n *node) error {
			if _, err := b.floor(n, tool.Name); err != nil {
				return err
			}
			var st unix.Statfs_t
			err := unix.Statfs(n.dir, &st)
			unpacked = float64(int64(st.Blocks-st.Bfree)*st.Bsize) / mib
			return err
		})
		for range min(b.rounds, 3) {
			if err == nil {
				err = measure(&peak, &after, func(n *node) error {
					if _, err := b.careenPull(n, tool.Name); err != nil {
						return err
					}
					_, err := b.careenRun(n, tool.Name, "never")
					return err
				})
			}
		}
		if err == nil {
			err = measure(&podmanPeak, &podmanAfter, func(n *node) error {
				if _, err := b.podmanPull(n, tool.Name); err != nil {
					return err
				}
				_, err := b.podmanRun(n, tool.Name)
				return err
			})
		}
		if err == nil {
			err = measure(&containerdPeak, &containerdAfter, func(n *node) error { _, err := b.containerd(n, tool.Name); return err })
		}
		return err
	})
	if err != nil {
		return err
	}
	base := fmt.Sprintf("unpacked %.0f MiB", unpacked)
	b.table.add(line{What: "memory, peak over pull and run", Unit: "MiB", Careen: peak, With: base, Limit: 1.08*unpacked + 48})
	b.table.add(line{What: "memory after pull and run", Unit: "MiB", Careen: after, With: base, Limit: 1.02*unpacked + 32})
	b.table.add(line{What: "memory, peak", Unit: "MiB", Careen: peak, Other: podmanPeak, With: "podman"})
	b.table.add(line{What: "memory after", Unit: "MiB", Careen: after, Other: podmanAfter, With: "podman"})
	b.table.add(line{What: "memory, peak over the pull", Unit: "MiB", Careen: peak, Other: containerdPeak, With: "containerd"})
	return nil
}
