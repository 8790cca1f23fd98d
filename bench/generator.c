/* A stand-in for the CLI that costs next to nothing, so that a hundred of them load the service and
 * not the machine. It speaks as much of the protocol as a load needs (tests/fake_cli.py speaks all):
 *
 *     !deltas N [MS]    N text deltas, MS milliseconds apart, each a line and a write of its own
 *
 * Each delta's text is the time of day at which it was written, in nanoseconds. */

#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SESSION "\"session_id\":\"00000000-0000-4000-8000-000000000000\""
#define UUID "\"uuid\":\"00000000-0000-4000-8000-%012ld\""
#define EVENT "{\"type\":\"stream_event\"," SESSION "," UUID ",\"parent_tool_use_id\":null,\"event\":"
#define MODELS "[{\"value\":\"default\",\"resolvedModel\":\"claude-opus-5-5\",\"displayName\":\"Default\"}]"
#define USAGE "\"usage\":{\"input_tokens\":10,\"output_tokens\":%ld}"

static long lines;

static void end_now(int number) { _exit(128 + number); }

static void say(const char *text, size_t length) {
    while (length > 0) {
        ssize_t written = write(1, text, length);
        if (written < 0 && errno != EINTR)
            _exit(1);
        if (written > 0) {
            text += written;
            length -= (size_t)written;
        }
    }
}

/* One line, in one write. */
#define SAY(...)                                                        \
    do {                                                                \
        char line_[2048];                                               \
        int length_ = snprintf(line_, sizeof line_, __VA_ARGS__);       \
        if (length_ < 0 || (size_t)length_ >= sizeof line_)             \
            _exit(2);                                                   \
        say(line_, (size_t)length_);                                    \
    } while (0)

/* The string after `"key":"` in a line whose keys are written without blanks, or with one. */
static void field(const char *line, const char *key, char *out, size_t size) {
    char wanted[64];
    snprintf(wanted, sizeof wanted, "\"%s\":", key);
    out[0] = '\0';
    const char *at = strstr(line, wanted);
    if (at == NULL)
        return;
    at += strlen(wanted);
    at += *at == ' ';
    if (*at++ != '"')
        return;
    size_t length = strcspn(at, "\"");
    if (length >= size)
        length = size - 1;
    memcpy(out, at, length);
    out[length] = '\0';
}

static int64_t nanoseconds(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static void sleep_until(int64_t moment) {
    struct timespec until = {moment / 1000000000, moment % 1000000000};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
        ;
}

static void answer_deltas(long count, double pause_ms) {
    int64_t begun = nanoseconds(CLOCK_MONOTONIC);
    int64_t pause = (int64_t)(pause_ms * 1e6);
    for (long index = 0; index < count; index++) {
        if (pause > 0)
            sleep_until(begun + index * pause);
        SAY(EVENT "{\"type\":\"content_block_delta\",\"index\":0,\"delta\":"
                  "{\"type\":\"text_delta\",\"text\":\"%lld \"}}}\n",
            lines++, (long long)nanoseconds(CLOCK_REALTIME));
    }
}

static void take_turn(const char *line) {
    char content[256], uuid[64];
    long count = 1;
    double pause = 0;
    field(line, "content", content, sizeof content);
    field(line, "uuid", uuid, sizeof uuid);
    sscanf(content, "!deltas %ld %lf", &count, &pause);
    if (uuid[0] != '\0')
        SAY("{\"type\":\"command_lifecycle\",\"command_uuid\":\"%s\",\"state\":\"started\"}\n", uuid);
    SAY("{\"type\":\"system\"," SESSION "," UUID ",\"subtype\":\"init\","
        "\"model\":\"claude-opus-5-5\",\"tools\":[]}\n", lines++);
    SAY(EVENT "{\"type\":\"message_start\",\"message\":{\"id\":\"msg_fake\",\"type\":\"message\","
              "\"model\":\"claude-opus-5-5\"," USAGE "}}}\n", lines++, 1L);
    SAY(EVENT "{\"type\":\"content_block_start\",\"index\":0,"
              "\"content_block\":{\"type\":\"text\",\"text\":\"\"}}}\n", lines++);
    answer_deltas(count, pause);
    SAY(EVENT "{\"type\":\"content_block_stop\",\"index\":0}}\n", lines++);
    SAY(EVENT "{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"}," USAGE "}}\n",
        lines++, count);
    SAY(EVENT "{\"type\":\"message_stop\"}}\n", lines++);
    SAY("{\"type\":\"result\"," SESSION "," UUID ",\"subtype\":\"success\",\"is_error\":false,"
        "\"result\":\"\",\"stop_reason\":\"end_turn\",\"terminal_reason\":\"completed\","
        "\"num_turns\":1,\"total_cost_usd\":0.001," USAGE "%s%s%s}\n",
        lines++, count, uuid[0] ? ",\"user_message_uuid\":\"" : "", uuid, uuid[0] ? "\"" : "");
}

static void answer_control(const char *line) {
    char request[128], subtype[64];
    field(line, "request_id", request, sizeof request);
    field(line, "subtype", subtype, sizeof subtype);
    const char *models = strcmp(subtype, "initialize") == 0 ? "\"models\":" MODELS : "";
    SAY("{\"type\":\"control_response\",\"response\":{\"subtype\":\"success\","
        "\"request_id\":\"%s\",\"response\":{%s}}}\n", request, models);
}

int main(int count, char **arguments) {
    for (int index = 1; index < count; index++)
        if (strcmp(arguments[index], "--version") == 0) {
            puts("2.1.329 (Claude Code)");
            return 0;
        }
    /* The first process of a PID namespace is spared signals that it does not handle. */
    signal(SIGTERM, end_now);
    char *line = NULL;
    size_t size = 0;
    while (getline(&line, &size, stdin) > 0) {
        char type[64];
        field(line, "type", type, sizeof type);
        if (strcmp(type, "control_request") == 0)
            answer_control(line);
        else if (strcmp(type, "user") == 0)
            take_turn(line);
    }
    free(line);
    return 0;
}
