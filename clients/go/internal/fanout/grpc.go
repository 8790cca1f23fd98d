package main

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	pb "warmline.dev/clients/go/warmline/v1"
)

const window = 64 << 20

type call struct {
	grpc.BidiStreamingClient[pb.ChatRequest, pb.ChatResponse]
}

// overGRPC opens Chats at an address, all over one connection.
func overGRPC(address string) (func() (stream, error), func(), error) {
	connection, err := grpc.NewClient(
		"passthrough:///"+address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		// Fixed windows: to size them itself it would send pings, which cost both sides CPU.
		grpc.WithInitialWindowSize(window),
		grpc.WithInitialConnWindowSize(window),
	)
	if err != nil {
		return nil, nil, err
	}
	client := pb.NewChatServiceClient(connection)
	open := func() (stream, error) {
		chat, err := client.Chat(context.Background())
		if err != nil {
			return nil, err
		}
		asked := &pb.ChatRequest{Frame: &pb.ChatRequest_Open{Open: &pb.Open{Detail: pb.Detail_DETAIL_TEXT}}}
		if err := chat.Send(asked); err != nil {
			return nil, err
		}
		_, err = chat.Recv()
		return call{chat}, err
	}
	return open, func() { _ = connection.Close() }, nil
}

func (c call) turn(request string) ([]arrival, error) {
	var taken []arrival
	message := &pb.UserMessage{Text: request}
	if err := c.Send(&pb.ChatRequest{Frame: &pb.ChatRequest_Message{Message: message}}); err != nil {
		return nil, err
	}
	for {
		response, err := c.Recv()
		if err != nil {
			return nil, err
		}
		now := time.Now().UnixNano()
		for _, event := range response.Events {
			switch kind := event.Kind.(type) {
			case *pb.Event_TextDelta:
				seen := event.Time.AsTime().UnixNano()
				taken = append(taken, arrival{now, seen, kind.TextDelta.Text})
			case *pb.Event_TurnFailed:
				return nil, errors.New("a turn failed: " + kind.TurnFailed.Status.Message)
			case *pb.Event_TurnCompleted:
				return taken, nil
			}
		}
	}
}
