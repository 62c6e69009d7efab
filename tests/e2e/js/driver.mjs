// Drives Centrifugo's official JavaScript client by orders on stdin, one JSON object a line; results and the client's
// events go to stdout. See tests/support/sdks.py, which speaks to it.

import { createInterface } from "node:readline";
import { Centrifuge as JsonCentrifuge } from "centrifuge";
import { Centrifuge as ProtobufCentrifuge } from "centrifuge/build/protobuf";
import { EventSource } from "eventsource";
import WebSocket from "ws";

const { url, data, headers, token, nextToken, transport, protobuf, emulation } = JSON.parse(process.argv[2]);

class SocketWithHeaders extends WebSocket {
  constructor(address, protocols) {
    super(address, protocols ?? [], { headers });
  }
}

const say = (message) => process.stdout.write(JSON.stringify(message) + "\n");
const tell = (event, context, more = {}) =>
  say({ event, code: context.error?.code ?? context.code ?? null, ...more });

// With Protobuf the payload stays JSON, as bytes.
const encode = (value) => (protobuf ? new TextEncoder().encode(JSON.stringify(value)) : value);
const decode = (value) => (protobuf && value?.length ? JSON.parse(new TextDecoder().decode(value)) : value);

const Centrifuge = protobuf ? ProtobufCentrifuge : JsonCentrifuge;
const client = new Centrifuge(transport === "websocket" ? url : [{ transport, endpoint: url }], {
  websocket: SocketWithHeaders,
  eventsource: EventSource,
  fetch: (address, options) => fetch(address, { ...options, headers: { ...headers, ...options.headers } }),
  readableStream: ReadableStream,
  emulationEndpoint: emulation,
  data: data == null ? undefined : encode(data),
  token: token || undefined,
  getToken: nextToken ? async () => nextToken : undefined,
  minReconnectDelay: 100,
  maxReconnectDelay: 1000,
});
for (const name of ["connecting", "connected", "disconnected", "error"]) {
  client.on(name, (context) => tell(name, context));
}

function watch(subscription) {
  const { channel } = subscription;
  for (const name of ["subscribing", "subscribed", "unsubscribed"]) {
    subscription.on(name, (context) => tell(name, context, { channel }));
  }
  subscription.on("error", (context) => tell("sub_error", context, { channel }));
  return subscription;
}

const delays = { minResubscribeDelay: 100, maxResubscribeDelay: 1000 };

const orders = {
  subscribe(channel, { recoverable, join_leave: joinLeave, delta } = {}) {
    const options = { ...delays, recoverable, joinLeave, delta: delta ? "fossil" : undefined };
    watch(client.newSubscription(channel, options))
      .on("publication", ({ data, info }) =>
        say({ event: "publication", channel, data: decode(data), user: info?.user ?? null }))
      .subscribe();
  },
  mapSubscribe(channel) {
    watch(client.newMapSubscription(channel, delays))
      .on("update", ({ key, data, removed }) =>
        say({ event: "update", channel, key, data: data ?? null, removed: removed ?? false }))
      .subscribe();
  },
  publish: (channel, data) => client.publish(channel, encode(data)),
  publishAll(channel, datas) {
    client.startBatching();
    const published = Promise.all(datas.map((data) => client.publish(channel, encode(data))));
    client.stopBatching();
    return published;
  },
  unsubscribe: (channel) => client.getSubscription(channel).unsubscribe(),
  history: async (channel, limit) =>
    (await client.getSubscription(channel).history({ limit })).publications.map(({ data }) => decode(data)),
  presence: async (channel) => Object.values((await client.getSubscription(channel).presence()).clients).map(({ user }) => user),
  presenceStats: async (channel) => (await client.getSubscription(channel).presenceStats()).numClients,
  rpc: async (method, data) => ({ data: decode((await client.rpc(method, encode(data))).data) }),
  mapPublish: (channel, key, data) => client.mapPublish(channel, key, data),
  mapRemove: (channel, key) => client.mapRemove(channel, key),
};

async function obey({ id, order, arguments: given }) {
  try {
    say({ id, result: (await orders[order](...given)) ?? null });
  } catch (error) {
    say({ id, error: { code: error.code ?? 0, message: error.message ?? String(error), temporary: error.temporary } });
  }
}

createInterface({ input: process.stdin })
  .on("line", (line) => obey(JSON.parse(line)))
  .on("close", () => process.exit(0));
client.connect();
