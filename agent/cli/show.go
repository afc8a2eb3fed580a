package cli

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/rootfs/doctor"
)

// textWidth is the width of text that is not a table, in columns.
const textWidth = 80

// Runs prints a table of runs.
func (c *Console) Runs(runs []api.Run) {
	var rows [][]string
	for _, run := range runs {
		exit := "-"
		if run.Outcome != nil && run.Outcome.ExitCode != nil {
			exit = strconv.Itoa(*run.Outcome.ExitCode)
		}
		rows = append(rows, []string{run.ID, string(run.State), exit, ago(run.CreatedAt), stepOrImage(run)})
	}
	table(c.Out, c.Width(), []string{"RUN", "STATE", "EXIT", "CREATED", "STEP OR IMAGE"}, rows)
}

func stepOrImage(run api.Run) string { return strings.TrimSpace(run.Step + " " + run.Image) }

// Images prints a table of stored images.
func (c *Console) Images(images []api.Image) {
	var rows [][]string
	for _, i := range images {
		rows = append(rows, []string{short(i.ID), short(i.Digest), Size(i.Size), ago(i.PulledAt), i.Name})
	}
	table(c.Out, c.Width(), []string{"ID", "DIGEST", "SIZE", "PULLED", "NAME"}, rows)
}

// Steps prints a table of steps.
func (c *Console) Steps(steps []api.Step) {
	yes := map[bool]string{true: "yes", false: "no"}
	var rows [][]string
	for _, s := range steps {
		rows = append(rows, []string{fmt.Sprint(s.Priority), s.Interface, yes[s.Abortable], yes[s.RebootRequested], s.Step})
	}
	table(c.Out, c.Width(), []string{"PRIORITY", "INTERFACE", "ABORTABLE", "REBOOT", "STEP"}, rows)
}

// Config prints warnings and a table of settings. No value is cut.
func (c *Console) Config(cfg api.Config) {
	for _, warning := range cfg.Warnings {
		c.Warn(warning)
	}
	var rows [][]string
	for _, s := range cfg.Settings {
		rows = append(rows, []string{s.Key, s.From, s.Value})
	}
	table(c.Out, math.MaxInt, []string{"KEY", "FROM", "VALUE"}, rows)
}

// Version prints the versions of careen and of its parts.
func (c *Console) Version(v api.Version) {
	for _, line := range [][2]string{
		{"careen", v.Version}, {"commit", v.Commit}, {"api", v.APIVersion}, {"containerd", v.Containerd},
		{"libcontainer", v.Libcontainer}, {"runtime-spec", v.Spec}, {"go", v.Go}, {"platform", v.Platform},
	} {
		fmt.Fprintf(c.Out, "%-13s %s\n", line[0]+":", line[1])
	}
}

// Checks prints the checks of doctor, each with its remedy below it.
func (c *Console) Checks(checks []api.Check) {
	colors := map[string]string{doctor.StatusOK: green, doctor.StatusWarning: yellow, doctor.StatusError: red}
	for _, check := range checks {
		status := fmt.Sprintf("%-7s", check.Status)
		if IsTerminal(c.Out) {
			status = c.style(colors[check.Status], status)
		}
		const indent = "                          "
		head := fmt.Sprintf("  %-16s ", Line(check.Name))
		if len(head) > len(indent)-len("warning") {
			head = strings.TrimRight(head, " ") + "\n" + indent // the name of a registry
		}
		detail := strings.TrimLeft(Wrap(Clean(check.Detail), indent, textWidth), " ")
		fmt.Fprintf(c.Out, "%s%s%s\n", status, head, detail)
		if check.Remedy != "" {
			fmt.Fprintln(c.Out, Wrap(Clean(check.Remedy), indent, textWidth))
		}
	}
}
