package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

type process struct {
	in  io.WriteCloser
	out *bufio.Reader
}

// overPipes starts processes of a binary, each of which leads a session, as the service's do. Without a
// reader they end by themselves.
func overPipes(binary string) (func() (stream, error), func(), error) {
	var lock sync.Mutex
	var started []*exec.Cmd
	open := func() (stream, error) {
		command := exec.Command(binary)
		command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		in, err := command.StdinPipe()
		if err != nil {
			return nil, err
		}
		out, err := command.StdoutPipe()
		if err != nil {
			return nil, err
		}
		if err := command.Start(); err != nil {
			return nil, err
		}
		lock.Lock()
		defer lock.Unlock()
		started = append(started, command)
		return process{in, bufio.NewReader(out)}, nil
	}
	closeAll := func() {
		for _, command := range started {
			_ = command.Process.Kill()
			_ = command.Wait()
		}
	}
	return open, closeAll, nil
}

func (p process) turn(request string) ([]arrival, error) {
	line := `{"type":"user","message":{"role":"user","content":"%s"}}` + "\n"
	if _, err := fmt.Fprintf(p.in, line, request); err != nil {
		return nil, err
	}
	var taken []arrival
	for {
		line, err := p.out.ReadSlice('\n')
		if err != nil {
			return nil, err
		}
		now := time.Now().UnixNano()
		switch {
		case bytes.Contains(line, []byte(`"text_delta"`)):
			text, err := textOf(line)
			if err != nil {
				return nil, err
			}
			taken = append(taken, arrival{received: now, text: text})
		case bytes.Contains(line, []byte(`"type":"result"`)):
			return taken, nil
		}
	}
}

func textOf(line []byte) (string, error) {
	var message struct {
		Event struct{ Delta struct{ Text string } }
	}
	err := json.Unmarshal(line, &message)
	return message.Event.Delta.Text, err
}
