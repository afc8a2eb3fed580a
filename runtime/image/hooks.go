package image

import (
	"context"
)

// hooks are the functions that a pull calls between its steps. The steps know nothing of
// signatures, progress and jitter: these are put in here, and nowhere else.
type hooks struct {
	// onStatus is called when the pull goes on to another part.
	onStatus func(status string)
	// onRetry is called before a request is made again.
	onRetry func()
	// onWait is called when the pull begins to wait for something, and with "" when it
	// goes on.
	onWait func(what string)
	// onWarn is called with one line about a change to the node, or another thing that an
	// operator should know.
	onWarn func(text string)

	// onPresent is called before a present image is used. Its error ends the pull.
	onPresent func(ctx context.Context, img *Image) error
	// postManifest is called when the manifest of an image is known, before anything else
	// is fetched. Its error ends the pull.
	postManifest func(ctx context.Context, src source, img *resolvedImage) error
	// preLayers is called before the first layer is fetched, if one is absent. It reports
	// whether it has waited. Its error ends the pull.
	preLayers func(ctx context.Context) (waited bool, err error)
	// onPlan is called with the layers of the image, of which the first are present.
	onPlan func(layers []layer, present int)
	// preLayer is called when the download of a layer begins, from several goroutines. The
	// function that it returns is called with the bytes of each read.
	preLayer func(i int) (onRead func(n int))
	// postLayer is called when a layer's snapshot is committed, from several goroutines.
	postLayer func(i int)
}

// newHooks puts the request's policy, the configured jitter and the progress reports into
// the pull.
func newHooks(j *job) hooks {
	report := j.progress
	return hooks{
		onStatus: report.status, onRetry: report.retried, onWait: report.waits, onWarn: report.warn,
		onPlan: report.layers, preLayer: report.layerBegins, postLayer: report.layerDone,
		onPresent: j.admitPresent, postManifest: j.admit, preLayers: j.jitter,
	}
}
