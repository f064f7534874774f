// SPDX-License-Identifier: Apache-2.0
// What the RPC layer needs of the daemon. Any thread may call anything, but for the event loop's own.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "stoker/v1/service.pb.h"

namespace stoker::rpc {

class Lane;

// A connected client, as the daemon sees it. Called on the event loop; no call blocks.
class SessionPeer {
 public:
  virtual ~SessionPeer() = default;
  virtual void Send(v1::SessionReply reply) = 0;
  // The session is over: the reason is sent, and the call ends.
  virtual void End(const absl::Status& reason) = 0;

  // From now on replies go by the lane, and requests come by it too. One a session; another is closed.
  virtual void Attach(std::shared_ptr<Lane> lane) = 0;
  virtual void Detach() = 0;
  virtual bool attached() const = 0;
  // Calls `handle` when the requests before `number` (as SessionRequest has it) have been handled.
  virtual void InOrder(uint64_t number, std::function<void()> handle) = 0;
};

// The bytes of a leased batch, kept in place as long as this lives.
class PinnedBatch {
 public:
  virtual ~PinnedBatch() = default;
  virtual absl::Span<const uint8_t> bytes() const = 0;
};

class Core {
 public:
  virtual ~Core() = default;

  virtual v1::StatusReply GetStatus() = 0;

  virtual absl::StatusOr<v1::IngestEvent::Done> Ingest(
      const v1::IngestRequest& request, const std::function<void(const v1::IngestEvent::Progress&)>& progress,
      const std::function<bool()>& cancelled) = 0;
  virtual absl::StatusOr<std::vector<v1::DatasetInfo>> ListDatasets(const std::string& name) = 0;
  virtual absl::StatusOr<bool> DropDataset(const std::string& name) = 0;

  // What comes by a session's stream is said in order: Open once, then the other requests any number of times, then
  // Close once, whatever happened. OpenSession may block for as long as it takes to open a store, HandleRequest to plan
  // the epoch of a Seek.
  virtual void OpenSession(std::shared_ptr<SessionPeer> peer, const v1::SessionRequest::Open& request) = 0;
  virtual void HandleRequest(std::shared_ptr<SessionPeer> peer, v1::SessionRequest request) = 0;
  virtual void CloseSession(std::shared_ptr<SessionPeer> peer) = 0;
  // What comes by its lane, each request in its turn. On the event loop; never Open, nor Seek in a plan by
  // budget.
  virtual void HandleOnLoop(SessionPeer* peer, const v1::SessionRequest& request) = 0;

  virtual absl::StatusOr<std::unique_ptr<PinnedBatch>> PinBatch(const v1::FetchRequest& request) = 0;
};

}  // namespace stoker::rpc
