// One Socket.IO server, as people run two or more of them behind a balancer: joined by Redis, tokens checked, clients
// in their rooms from the start.
//
//   node server.mjs <port> redis|streams <redis url> <secret>
//
// `redis`: @socket.io/redis-adapter (pub/sub; nothing is kept). `streams`: @socket.io/redis-streams-adapter with
// connection state recovery. WebSocket only, compression off (its default), and the documented memory advice is followed.

import { createServer } from 'node:http';
import { createAdapter } from '@socket.io/redis-adapter';
import { createAdapter as createStreamsAdapter } from '@socket.io/redis-streams-adapter';
import jwt from 'jsonwebtoken';
import { createClient } from 'redis';
import { Server } from 'socket.io';

const [port, kind, url, secret] = process.argv.slice(2);

async function connected() {
  const client = createClient({ url });
  // Without a listener a lost connection ends the process.
  client.on('error', (error) => console.error(`redis: ${error.message}`));
  await client.connect();
  return client;
}

const options = { transports: ['websocket'], serveClient: false, pingInterval: 25_000 };
if (kind === 'streams') {
  // Ten times the default length: enough for what the largest measurement sends during its outage.
  options.adapter = createStreamsAdapter(await connected(), { maxLen: 100_000 });
  options.connectionStateRecovery = { maxDisconnectionDuration: 120_000, skipMiddlewares: true };
} else {
  options.adapter = createAdapter(await connected(), await connected());
}

const http = createServer();
const io = new Server(http, options);
// Recommended for memory: https://socket.io/docs/v4/memory-usage/
io.engine.on('connection', (socket) => {
  socket.request = null;
});

io.use((socket, next) => {
  try {
    const { token, rooms } = socket.handshake.auth;
    const { sub } = jwt.verify(token, secret, { algorithms: ['HS256'] });
    socket.join([`user:${sub}`, ...(rooms ?? [])]);
    next();
  } catch (error) {
    next(error);
  }
});

io.on('connection', (socket) => {
  socket.on('pub', (room, data, acknowledge) => {
    io.to(room).emit('m', data);
    acknowledge();
  });
});

http.listen({ port: Number(port), host: '127.0.0.1', backlog: 4_096 }, () => console.log('ready'));
