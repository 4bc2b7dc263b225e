package pods

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	k8sruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// APIServerConfig says how to ask the API server.
type APIServerConfig struct {
	Config   *rest.Config // of the cluster: rest.InClusterConfig in a pod
	NodeName string       // whose pods are followed
}

type apiServer struct {
	client *rest.RESTClient
	node   string
}

// gathering is how long changes may gather before they are told.
const gathering = 20 * time.Millisecond

// NewAPIServer returns a source that follows the pods of one node at the API server. The service account needs to list
// and watch pods.
func NewAPIServer(cfg APIServerConfig) (Source, error) {
	if cfg.Config == nil || cfg.NodeName == "" {
		return nil, errors.New("the API server needs its configuration and the name of the node")
	}
	scheme := k8sruntime.NewScheme() // core/v1 alone: the whole of client-go's would double the program
	if err := corev1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	conf := rest.CopyConfig(cfg.Config)
	conf.GroupVersion = &corev1.SchemeGroupVersion
	conf.APIPath = "/api"
	conf.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	if conf.UserAgent == "" {
		conf.UserAgent = "drover"
	}
	client, err := rest.RESTClientFor(conf)
	if err != nil {
		return nil, fmt.Errorf("the API server's configuration: %w", err)
	}
	return &apiServer{client, cfg.NodeName}, nil
}

func (a *apiServer) Name() string { return "apiserver" }

func (a *apiServer) Follow(ctx context.Context, told func([]*PodInfo), failed func(error)) {
	selector := fields.OneTermEqualSelector("spec.nodeName", a.node)
	from := cache.NewListWatchFromClient(a.client, "pods", metav1.NamespaceAll, selector)
	informer := cache.NewSharedIndexInformer(from, &corev1.Pod{}, 0, cache.Indexers{})
	news, failures := make(chan struct{}, 1), make(chan error, 1)
	err := errors.Join(
		informer.SetTransform(func(obj any) (any, error) {
			if p, ok := obj.(*corev1.Pod); ok {
				p.ManagedFields = nil // much, and nobody's concern here
			}
			return obj, nil
		}),
		informer.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *cache.Reflector, err error) {
			select {
			case failures <- fmt.Errorf("API server: %w", err):
			default: // one is enough until it was told
			}
		}),
	)
	poke := func() { poke(news) }
	if err == nil {
		_, err = informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc: func(any) { poke() }, UpdateFunc: func(any, any) { poke() }, DeleteFunc: func(any) { poke() },
		})
	}
	if err != nil {
		failed(err)
		<-ctx.Done()
		return
	}
	var wait sync.WaitGroup
	defer wait.Wait()
	wait.Go(func() { informer.RunWithContext(ctx) })
	wait.Go(func() {
		if cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
			poke() // an empty list is news too
		}
	})
	for {
		select {
		case <-ctx.Done():
			return
		case err := <-failures:
			failed(err)
		case <-news:
			if !informer.HasSynced() {
				continue
			}
			if sleep(ctx, gathering) != nil {
				return
			}
			told(a.pods(informer.GetStore().List()))
		}
	}
}

func (a *apiServer) pods(objects []any) []*PodInfo {
	out := make([]*PodInfo, 0, len(objects))
	for _, obj := range objects {
		if p, ok := obj.(*corev1.Pod); ok {
			out = append(out, fromCore(p))
		}
	}
	return out
}
