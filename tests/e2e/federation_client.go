// Fetches a bundle by the profile `https_spiffe`: TRUST_DOMAIN URL ENDPOINT_SPIFFE_ID FIRST_BUNDLE.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/federation"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	domain := spiffeid.RequireTrustDomainFromString(os.Args[1])
	endpoint := spiffeid.RequireFromString(os.Args[3])
	first, err := spiffebundle.Load(domain, os.Args[4])
	if err == nil {
		var fetched *spiffebundle.Bundle
		fetched, err = federation.FetchBundle(ctx, domain, os.Args[2], federation.WithSPIFFEAuth(first, endpoint))
		if err == nil {
			hint, _ := fetched.RefreshHint()
			fmt.Println(len(fetched.X509Authorities()), len(fetched.JWTAuthorities()), hint)
			return
		}
	}
	fmt.Println("refused")
	fmt.Fprintln(os.Stderr, err)
}
