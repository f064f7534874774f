// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/service.h"

#include <algorithm>
#include <future>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "server/rpc/session.h"

namespace stoker::rpc {
namespace {

constexpr absl::Duration kCancelPoll = absl::Milliseconds(50);
constexpr size_t kChunkBytes = 1 << 20;

// The newest progress, from the threads that work to the one that writes to the client.
class LatestProgress {
 public:
  void Put(const v1::IngestEvent::Progress& progress) {
    absl::MutexLock lock(&mutex_);
    latest_ = progress;
  }
  std::optional<v1::IngestEvent::Progress> Take() {
    absl::MutexLock lock(&mutex_);
    return std::exchange(latest_, std::nullopt);
  }

 private:
  absl::Mutex mutex_;
  std::optional<v1::IngestEvent::Progress> latest_ ABSL_GUARDED_BY(mutex_);
};

bool ContinuesCharacter(char c) { return (c & 0xC0) == 0x80; }  // in UTF-8

// gRPC drops code and message of a status whose headers exceed 8 KiB, and writes what is not printable ASCII as three
// bytes each. A message beyond `kLongest` loses its middle: the start says what and where, the end what to do.
std::string Shortened(absl::string_view message) {
  constexpr size_t kLongest = 2000;
  constexpr size_t kEnd = kLongest / 4;
  if (message.size() <= kLongest) return std::string(message);
  absl::string_view start = message.substr(0, kLongest - kEnd);
  absl::string_view end = message.substr(message.size() - kEnd);
  while (!start.empty() && ContinuesCharacter(message[start.size()])) start.remove_suffix(1);
  while (!end.empty() && ContinuesCharacter(end[0])) end.remove_prefix(1);
  return absl::StrCat(start, " [...] ", end);
}

}  // namespace

grpc::Status ToGrpc(const absl::Status& status) {
  return {static_cast<grpc::StatusCode>(status.code()), Shortened(status.message())};
}

grpc::Status Service::GetStatus(grpc::ServerContext*, const v1::StatusRequest*, v1::StatusReply* reply) {
  const Calls::InFlight call(&calls_);
  *reply = core_->GetStatus();
  return grpc::Status::OK;
}

grpc::Status Service::WatchStatus(grpc::ServerContext* context, const v1::StatusRequest* request,
                                  grpc::ServerWriter<v1::StatusReply>* writer) {
  const Calls::InFlight call(&calls_);
  const double seconds = request->interval_seconds() == 0 ? 1 : request->interval_seconds();
  if (!(seconds >= 0.05 && seconds <= 3600)) {
    return {grpc::StatusCode::INVALID_ARGUMENT, absl::StrCat("interval_seconds: ", seconds, " is not in [0.05, 3600]")};
  }
  while (true) {
    const v1::StatusReply status = core_->GetStatus();
    if (!writer->Write(status)) return grpc::Status::CANCELLED;
    // Who watches must not keep the daemon from ending before its deadline.
    if (status.state() == v1::StatusReply::DRAINING) return ToGrpc(absl::UnavailableError("the daemon is stopping"));
    const absl::Time next = absl::Now() + absl::Seconds(seconds);
    while (absl::Now() < next) {
      if (context->IsCancelled()) return grpc::Status::CANCELLED;
      absl::SleepFor(std::min(kCancelPoll, next - absl::Now()));
    }
  }
}

grpc::Status Service::Ingest(grpc::ServerContext* context, const v1::IngestRequest* request,
                             grpc::ServerWriter<v1::IngestEvent>* writer) {
  const Calls::InFlight call(&calls_);
  LatestProgress latest;
  std::future<absl::StatusOr<v1::IngestEvent::Done>> result = std::async(std::launch::async, [&] {
    return core_->Ingest(
        *request, [&](const v1::IngestEvent::Progress& progress) { latest.Put(progress); },
        [context] { return context->IsCancelled(); });
  });
  bool over = false;
  while (!over) {
    over = result.wait_for(absl::ToChronoMilliseconds(kCancelPoll)) == std::future_status::ready;
    if (std::optional<v1::IngestEvent::Progress> progress =
            latest.Take()) {  // what came last is told even of a quick one
      v1::IngestEvent event;
      *event.mutable_progress() = *std::move(progress);
      writer->Write(event);  // a client that is gone cancels the call, which stops the work
    }
  }
  absl::StatusOr<v1::IngestEvent::Done> done = result.get();
  if (!done.ok()) return ToGrpc(done.status());
  v1::IngestEvent event;
  *event.mutable_done() = *std::move(done);
  writer->Write(event);
  return grpc::Status::OK;
}

grpc::Status Service::ListDatasets(grpc::ServerContext*, const v1::ListDatasetsRequest* request,
                                   v1::ListDatasetsReply* reply) {
  const Calls::InFlight call(&calls_);
  absl::StatusOr<std::vector<v1::DatasetInfo>> datasets = core_->ListDatasets(request->name());
  if (!datasets.ok()) return ToGrpc(datasets.status());
  for (v1::DatasetInfo& dataset : *datasets) *reply->add_datasets() = std::move(dataset);
  return grpc::Status::OK;
}

grpc::Status Service::DropDataset(grpc::ServerContext*, const v1::DropDatasetRequest* request,
                                  v1::DropDatasetReply* reply) {
  const Calls::InFlight call(&calls_);
  const absl::StatusOr<bool> removed = core_->DropDataset(request->name());
  if (!removed.ok()) return ToGrpc(removed.status());
  reply->set_store_removed(*removed);
  return grpc::Status::OK;
}

grpc::ServerBidiReactor<v1::SessionRequest, v1::SessionReply>* Service::Session(grpc::CallbackServerContext*) {
  return rpc::Session::Start(core_, &calls_);
}

grpc::Status Service::Fetch(grpc::ServerContext*, const v1::FetchRequest* request,
                            grpc::ServerWriter<v1::FetchChunk>* writer) {
  const Calls::InFlight call(&calls_);
  const absl::StatusOr<std::unique_ptr<PinnedBatch>> batch = core_->PinBatch(*request);
  if (!batch.ok()) return ToGrpc(batch.status());
  const absl::Span<const uint8_t> bytes = (*batch)->bytes();
  v1::FetchChunk chunk;
  for (size_t done = 0; done < bytes.size(); done += chunk.data().size()) {
    const absl::Span<const uint8_t> piece = bytes.subspan(done, kChunkBytes);
    chunk.set_offset_bytes(done);
    chunk.set_data(piece.data(), piece.size());
    if (!writer->Write(chunk)) return grpc::Status::CANCELLED;
  }
  return grpc::Status::OK;
}

}  // namespace stoker::rpc
