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

// A connected client, as the daemon sees it. Called on the event loop; neither call blocks.
class SessionPeer {
 public:
  virtual ~SessionPeer() = default;
  virtual void Send(v1::SessionReply reply) = 0;
  // The session is over: the reason is sent, and the call ends.
  virtual void End(const absl::Status& reason) = 0;
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

  // A client's messages come in order: Open once, then the others any number of times, then Close once, whatever
  // happened. OpenSession may block for as long as it takes to open a store, SeekSession to plan an epoch.
  virtual void OpenSession(std::shared_ptr<SessionPeer> peer, const v1::SessionRequest::Open& request) = 0;
  virtual void AdvanceSession(std::shared_ptr<SessionPeer> peer, v1::SessionRequest::Advance request) = 0;
  virtual void SeekSession(std::shared_ptr<SessionPeer> peer, v1::SessionRequest::Seek request) = 0;
  virtual void ShareCopy(std::shared_ptr<SessionPeer> peer, v1::SessionRequest request) = 0;  // Claim, Offer, Withdraw
  virtual void CloseSession(std::shared_ptr<SessionPeer> peer) = 0;

  virtual absl::StatusOr<std::unique_ptr<PinnedBatch>> PinBatch(const v1::FetchRequest& request) = 0;
};

}  // namespace stoker::rpc
