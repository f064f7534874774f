// SPDX-License-Identifier: Apache-2.0
#include "server/workers/worker.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/ingest/unit.h"
#include "shared/base/status_macros.h"

namespace stoker::workers {
namespace {

void FillStatus(const absl::Status& status, v1::WorkerStatus* out) {
  constexpr size_t kLongestMessage = 8192;  // fits into a packet whatever the source's names are
  out->set_code(static_cast<int>(status.code()));
  out->set_message(std::string(status.message().substr(0, kLongestMessage)));
}

batch::Counts ToCounts(const v1::ToWorker::Counts& message) {
  return {message.samples(), message.nodes(), message.edges(), message.triplets(), message.text_bytes()};
}

}  // namespace

void Worker::Run() {
  v1::FromWorker ready;
  ready.mutable_ready();
  absl::Status status = Answer(ready);
  while (status.ok()) {
    absl::StatusOr<std::optional<Channel::Received>> received = channel_.Receive();
    if (!received.ok() || !*received) return;
    v1::ToWorker message;
    if (!message.ParseFromString((*received)->bytes)) return;
    status = Handle(message, std::move((*received)->fd));
  }
}

absl::Status Worker::Handle(const v1::ToWorker& message, UniqueFd fd) {
  switch (message.message_case()) {
    case v1::ToWorker::kMapSegment:
      return MapSegment(message.map_segment(), std::move(fd));
    case v1::ToWorker::kUnmapSegment:
      segments_.erase(message.unmap_segment().segment());
      return absl::OkStatus();
    case v1::ToWorker::kOpenStream: {
      const auto& open = message.open_stream();
      Stream& stream = streams_[open.stream()];
      auto maker = batch::BatchMaker::Create(open.store_dir(), open.recipe());
      stream.status = maker.status();
      if (maker.ok()) stream.maker = *std::move(maker);
      return absl::OkStatus();
    }
    case v1::ToWorker::kCloseStream:
      streams_.erase(message.close_stream().stream());
      return absl::OkStatus();
    case v1::ToWorker::kMakePart: {
      const absl::Time start = absl::Now();
      v1::FromWorker answer;
      answer.mutable_part_done()->set_part(message.make_part().part());
      FillStatus(Make(message.make_part()), answer.mutable_part_done()->mutable_status());
      answer.mutable_part_done()->set_busy_nanoseconds(
          static_cast<uint64_t>(absl::ToInt64Nanoseconds(absl::Now() - start)));
      return Answer(answer);
    }
    case v1::ToWorker::kIngestUnit: {
      const uint64_t unit = message.ingest_unit().unit();
      const auto progress = [&](uint64_t bytes_done) {
        v1::FromWorker report;
        report.mutable_unit_progress()->set_unit(unit);
        report.mutable_unit_progress()->set_bytes_done(bytes_done);
        (void)Answer(report);  // if the daemon is gone, the next Receive says so
      };
      const absl::StatusOr<std::string> summary = ingest::RunUnit(message.ingest_unit(), progress);
      v1::FromWorker answer;
      answer.mutable_unit_done()->set_unit(unit);
      FillStatus(summary.status(), answer.mutable_unit_done()->mutable_status());
      return Answer(answer);
    }
    case v1::ToWorker::MESSAGE_NOT_SET:
      break;
  }
  return absl::InternalError("worker: unknown message");
}

absl::Status Worker::MapSegment(const v1::ToWorker::MapSegment& message, UniqueFd fd) {
  absl::StatusOr<segment::MappedSegment> mapped =
      segment::MappedSegment::MapReadWrite(std::move(fd), message.size_bytes());
  if (!mapped.ok()) return mapped.status();  // ends the worker: it could make nothing
  segments_.insert_or_assign(message.segment(), *std::move(mapped));
  return absl::OkStatus();
}

absl::Status Worker::Make(const v1::ToWorker::MakePart& part) {
  const auto stream = streams_.find(part.stream());
  const auto segment = segments_.find(part.segment());
  if (stream == streams_.end() || segment == segments_.end()) {
    return absl::InternalError(
        absl::StrCat("part ", part.part(), ": unknown stream ", part.stream(), " or segment ", part.segment()));
  }
  STOKER_RETURN_IF_ERROR(stream->second.status);
  const uint64_t size = segment->second.size_bytes();
  if (part.extent_size_bytes() > size || part.extent_offset_bytes() > size - part.extent_size_bytes()) {
    return absl::InternalError(absl::StrCat("part ", part.part(), ": extent is not inside the segment"));
  }
  return stream->second.maker->WritePart(
      part.sample(), ToCounts(part.before()), ToCounts(part.total()),
      {segment->second.mutable_data() + part.extent_offset_bytes(), part.extent_size_bytes()});
}

}  // namespace stoker::workers
