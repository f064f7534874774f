// SPDX-License-Identifier: Apache-2.0
// Lanes: sockets beside gRPC's, over which open sessions exchange their messages (service.proto, LaneHello). Everything
// here is on the event loop.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/loop/event_loop.h"
#include "server/rpc/core.h"
#include "shared/channel/channel.h"
#include "stoker/v1/service.pb.h"

namespace stoker::rpc {

// The daemon's end of one session's lane.
class Lane : public std::enable_shared_from_this<Lane> {
 public:
  Lane(Channel channel, loop::EventLoop* loop) : channel_(std::move(channel)), loop_(loop) {}
  ~Lane() { Close(); }

  // Begins to hand over what comes. `on_end`: the client is gone, or what came is no request; at most once, and not for
  // Close.
  void Start(std::function<void(v1::SessionRequest)> on_request, std::function<void(const absl::Status&)> on_end);
  // Never waits: what a client does not read is kept for it. A reply too large for a packet goes in several if it has
  // several batches, else is the lane's end.
  void Send(v1::SessionReply reply);
  void Close();

 private:
  void OnReady(uint32_t events);
  void SendUnsent();
  void Shut();
  void Fail(const absl::Status& reason);

  Channel channel_;
  loop::EventLoop* const loop_;
  std::function<void(v1::SessionRequest)> on_request_;
  std::function<void(const absl::Status&)> on_end_;
  std::deque<v1::SessionReply> unsent_;
  bool open_ = false;
  bool left_ = false;  // by its session
};

// Accepts lanes and brings each to its session. The destructor closes those that have not said whose they are, and
// removes the socket.
class LaneListener {
 public:
  // The session that a client means, if it may: null else.
  using Find = std::function<std::shared_ptr<SessionPeer>(const v1::LaneHello&)>;

  // The socket at `path` is there from here on, with the mode that the umask leaves. Errors are those of
  // Channel::Listen.
  static absl::StatusOr<std::unique_ptr<LaneListener>> Listen(const std::string& path, loop::EventLoop* loop);
  ~LaneListener();

  void Start(Find find);

 private:
  LaneListener(std::string path, UniqueFd socket, loop::EventLoop* loop)
      : path_(std::move(path)), socket_(std::move(socket)), loop_(loop) {}
  void Accept();
  void OnHello(int fd);

  const std::string path_;
  const UniqueFd socket_;
  loop::EventLoop* const loop_;
  loop::EventLoop::TimerId resume_ = 0;
  Find find_;
  absl::flat_hash_map<int, Channel> strangers_;  // who has not said hello, by descriptor
};

}  // namespace stoker::rpc
