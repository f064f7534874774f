// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "server/batch/batch_maker.h"
#include "shared/channel/channel.h"
#include "shared/segment/segment.h"
#include "stoker/v1/worker.pb.h"

namespace stoker::workers {

// What a worker does: takes one message after the other, writes parts of batches into segments and sources into shards,
// and answers. The same code runs as a process of its own and, with --workers=0, as a thread of the daemon. One thread.
class Worker {
 public:
  explicit Worker(UniqueFd socket) : channel_(std::move(socket)) {}

  // Serves until the daemon's end of the socket closes.
  void Run();

 private:
  absl::Status Handle(const v1::ToWorker& message, UniqueFd fd);
  absl::Status MapSegment(const v1::ToWorker::MapSegment& message, UniqueFd fd);
  absl::Status Make(const v1::ToWorker::MakePart& part);
  absl::Status Answer(const v1::FromWorker& message) { return channel_.Send(message); }

  Channel channel_;
  absl::flat_hash_map<uint32_t, segment::MappedSegment> segments_;
  struct Stream {
    absl::Status status;  // the answer to each part, where it is an error
    std::unique_ptr<batch::BatchMaker> maker;
  };
  absl::flat_hash_map<uint64_t, Stream> streams_;
};

}  // namespace stoker::workers
