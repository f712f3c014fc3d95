// A workload: what go-spiffe gets of the Workload API, one line each, until the identity is denied.
package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

type watcher struct{ updates, denials chan string }

func (w watcher) OnX509ContextUpdate(c *workloadapi.X509Context) { w.updates <- c.DefaultSVID().ID.String() }

func (w watcher) OnX509ContextWatchError(err error) {
	if status.Code(err) == codes.PermissionDenied {
		w.denials <- "denied"
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	client, err := workloadapi.New(ctx)
	check(err)
	svid, err := client.FetchX509SVID(ctx)
	check(err)
	fmt.Println("x509", svid.ID)
	roots, err := client.FetchX509Bundles(ctx)
	check(err)
	fmt.Println("bundles", roots.Len())
	token, err := client.FetchJWTSVID(ctx, jwtsvid.Params{Audience: "api"})
	check(err)
	fmt.Println("jwt", token.ID)
	validated, err := client.ValidateJWTSVID(ctx, token.Marshal(), "api")
	check(err)
	fmt.Println("validated", validated.ID)
	keys, err := client.FetchJWTBundles(ctx)
	check(err)
	_, err = jwtsvid.ParseAndValidate(token.Marshal(), keys, []string{"api"})
	check(err)
	fmt.Println("keys", keys.Len())
	fmt.Println("mtls", peerOverTLS(ctx, svid.ID))
	w := watcher{make(chan string, 8), make(chan string, 8)}
	go client.WatchX509Context(ctx, w)
	fmt.Println("watched", <-w.updates)
	fmt.Println(<-w.denials)
}

// peerOverTLS makes a connection with itself, mutual TLS on both ends, and returns whom the client met.
func peerOverTLS(ctx context.Context, id spiffeid.ID) spiffeid.ID {
	source, err := workloadapi.NewX509Source(ctx)
	check(err)
	defer source.Close()
	authorizer := tlsconfig.AuthorizeID(id)
	listener, err := spiffetls.ListenWithMode(ctx, "tcp", "127.0.0.1:0", spiffetls.MTLSServerWithSource(authorizer, source))
	check(err)
	defer listener.Close()
	go func() {
		if accepted, err := listener.Accept(); err == nil {
			accepted.Write([]byte("x"))
			accepted.Close()
		}
	}()
	var connection net.Conn
	connection, err = spiffetls.DialWithMode(
		ctx, "tcp", listener.Addr().String(), spiffetls.MTLSClientWithSource(authorizer, source))
	check(err)
	defer connection.Close()
	_, err = connection.Read(make([]byte, 1))
	check(err)
	peer, err := spiffetls.PeerIDFromConn(connection)
	check(err)
	return peer
}
