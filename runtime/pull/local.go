package pull

import (
	"context"
	"errors"
)

func (p *Puller) openFile(_ context.Context, _ *Request) (source, error) {
	return nil, errors.New("unsupported")
}
