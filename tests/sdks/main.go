// A2A's Go SDK against an agent: `client ADDRESS BINDING`. Prints what it saw as JSON.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"

	"github.com/a2aproject/a2a-go/v2/a2a"
	"github.com/a2aproject/a2a-go/v2/a2aclient"
	"github.com/a2aproject/a2a-go/v2/a2aclient/agentcard"
	"github.com/a2aproject/a2a-go/v2/a2agrpc/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

func message(name string) *a2a.SendMessageRequest {
	made := a2a.NewMessage(a2a.MessageRoleUser, a2a.NewTextPart("hello"))
	made.ID = name + "-" + made.ID
	return &a2a.SendMessageRequest{Message: made}
}

func text(parts a2a.ContentParts) string {
	whole := ""
	for _, part := range parts {
		whole += part.Text()
	}
	return whole
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func main() {
	ctx := context.Background()
	card, err := agentcard.DefaultResolver.Resolve(ctx, os.Args[1])
	check(err)
	config := a2aclient.Config{PreferredTransports: []a2a.TransportProtocol{a2a.TransportProtocol(os.Args[2])}}
	client, err := a2aclient.NewFromCard(ctx, card, a2aclient.WithConfig(config),
		a2agrpc.WithGRPCTransport(grpc.WithTransportCredentials(insecure.NewCredentials())))
	check(err)
	result, err := client.SendMessage(ctx, message("tck-complete-task"))
	check(err)
	task := result.(*a2a.Task)
	streamed := ""
	for event, err := range client.SendStreamingMessage(ctx, message("tck-stream-001")) {
		check(err)
		if update, ok := event.(*a2a.TaskArtifactUpdateEvent); ok {
			streamed += text(update.Artifact.Parts)
		}
	}
	again, err := client.GetTask(ctx, &a2a.GetTaskRequest{ID: task.ID})
	check(err)
	_, err = client.GetTask(ctx, &a2a.GetTaskRequest{ID: "absent"})
	absent := ""
	if errors.Is(err, a2a.ErrTaskNotFound) {
		absent = "TaskNotFoundError"
	}
	seen, err := json.Marshal(map[string]string{
		"answer":   text(task.Status.Message.Parts),
		"streamed": streamed,
		"again":    string(again.Status.State),
		"absent":   absent,
	})
	check(err)
	fmt.Println(string(seen))
}
