/* What stands where in a command and in its request, in JSON and in Protobuf; from Centrifugo's client.proto. Only
   members that we read: all others are skipped. Included by the two readers of commands. */
#include <stddef.h>
#include <stdint.h>

enum {  /* what a member of a command or of its request is; the requests have the numbers of their Kind */
    F_ID = 14, F_CHANNEL, F_TOKEN, F_DATA, F_NAME, F_VERSION, F_HEADERS, F_FLAG, F_DICT, F_WORD, F_TYPE, F_PHASE,
    F_LIMIT, F_RECOVER, F_REMOVED,                  /* all below 32: what has been seen is a bit each */
    F_UNKNOWN = -1, F_END = -2, F_FAULT = -3, F_REFUSED = -4
};
typedef struct { const char *text; uint8_t size; uint8_t field; uint8_t number; } Name;
typedef struct { const Name *names; int count; } Names;
#define N(text, field, number) {text, sizeof(text) - 1, field, number}
static const Name COMMAND[] = {
    N("id", F_ID, 1), N("publish", 6, 7), N("rpc", 10, 13), N("subscribe", 4, 5), N("connect", 2, 4),
    N("unsubscribe", 5, 6), N("presence", 7, 8), N("presence_stats", 8, 9), N("history", 9, 10),
    N("ping", 3, 11), N("send", 11, 12), N("refresh", 12, 14), N("sub_refresh", 13, 15)};
static const Name CONNECT[] = {
    N("token", F_TOKEN, 1), N("data", F_DATA, 2), N("name", F_NAME, 4), N("version", F_VERSION, 5),
    N("headers", F_HEADERS, 6), N("flag", F_FLAG, 7), N("dict", F_DICT, 8)};
static const Name SUBSCRIBE[] = {
    N("channel", F_CHANNEL, 1), N("token", F_TOKEN, 2), N("recover", F_RECOVER, 3), N("data", F_DATA, 8),
    N("flag", F_FLAG, 14), N("type", F_TYPE, 15), N("phase", F_PHASE, 16), N("cursor", F_WORD, 17),
    N("limit", F_LIMIT, 18)};
static const Name PUBLISH[] = {
    N("channel", F_CHANNEL, 1), N("data", F_DATA, 2), N("type", F_TYPE, 3), N("removed", F_REMOVED, 5)};
static const Name CHANNEL[] = {N("channel", F_CHANNEL, 1)};
static const Name HISTORY[] = {N("channel", F_CHANNEL, 1), N("limit", F_LIMIT, 7)};
static const Name RPC[] = {N("data", F_DATA, 1), N("method", F_WORD, 2)};
static const Name SEND[] = {N("data", F_DATA, 1)};
static const Name REFRESH[] = {N("token", F_TOKEN, 1)};
static const Name SUB_REFRESH[] = {N("channel", F_CHANNEL, 1), N("token", F_TOKEN, 2), N("type", F_TYPE, 3)};
#define NAMES(table) {table, sizeof(table) / sizeof(Name)}
static const Names MEMBERS[] = {                    /* by Kind */
    NAMES(COMMAND), {NULL, 0}, NAMES(CONNECT), {NULL, 0}, NAMES(SUBSCRIBE), NAMES(CHANNEL), NAMES(PUBLISH),
    NAMES(CHANNEL), NAMES(CHANNEL), NAMES(HISTORY), NAMES(RPC), NAMES(SEND), NAMES(REFRESH), NAMES(SUB_REFRESH)};
