package policy

import (
	"time"

	"github.com/careen-project/careen/oci"
)

// Resolved is a request that may run.
type Resolved struct {
	// Trusted, Abortable and RebootRequested are the step's.
	Trusted, Abortable, RebootRequested bool
	// Parts are the containers, in the order in which they run. There is at least one.
	Parts []Part
	// Environ are the variables of the caller's environment that options read. The others
	// may hold secrets and have to be dropped.
	Environ map[string]string
	// Warnings are one line each.
	Warnings []string
}

// Part is one container of a run.
type Part struct {
	// Image is the reference as requested. Name is the container's name, "" for none.
	Image, Name string
	Pull        *oci.Pull
	Run         *oci.Run
	// RunOptions and PullOptions are the options with secret values hidden.
	RunOptions, PullOptions []string
	// Trusted says that the operator defined the step. Entry is the entry of the policy
	// that allowed it.
	Trusted bool
	Entry   string
	// Timeout and SilenceTimeout are limits of this part; 0 is none.
	Timeout, SilenceTimeout time.Duration
	// RebootExitCodes are exit codes that mean success and ask for a reboot of the node.
	RebootExitCodes []int
	// Critical makes the whole run of the container a critical section.
	Critical bool
	// Inputs are steps whose last results in this boot the container can read.
	Inputs []string
}
