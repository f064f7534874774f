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

}  // namespace

grpc::Status ToGrpc(const absl::Status& status) {
  return {static_cast<grpc::StatusCode>(status.code()), std::string(status.message())};
}

grpc::Status Service::GetStatus(grpc::ServerContext*, const v1::StatusRequest*, v1::StatusReply* reply) {
  *reply = core_->GetStatus();
  return grpc::Status::OK;
}

grpc::Status Service::WatchStatus(grpc::ServerContext* context, const v1::StatusRequest* request,
                                  grpc::ServerWriter<v1::StatusReply>* writer) {
  const double seconds = request->interval_seconds() == 0 ? 1 : request->interval_seconds();
  if (!(seconds >= 0.05 && seconds <= 3600)) {
    return {grpc::StatusCode::INVALID_ARGUMENT, absl::StrCat("interval_seconds: ", seconds, " is not in [0.05, 3600]")};
  }
  while (writer->Write(core_->GetStatus())) {
    const absl::Time next = absl::Now() + absl::Seconds(seconds);
    while (absl::Now() < next) {
      if (context->IsCancelled()) return grpc::Status::CANCELLED;
      absl::SleepFor(std::min(kCancelPoll, next - absl::Now()));
    }
  }
  return grpc::Status::OK;
}

grpc::Status Service::Ingest(grpc::ServerContext* context, const v1::IngestRequest* request,
                             grpc::ServerWriter<v1::IngestEvent>* writer) {
  LatestProgress latest;
  std::future<absl::StatusOr<v1::IngestEvent::Done>> result = std::async(std::launch::async, [&] {
    return core_->Ingest(
        *request, [&](const v1::IngestEvent::Progress& progress) { latest.Put(progress); },
        [context] { return context->IsCancelled(); });
  });
  while (result.wait_for(absl::ToChronoMilliseconds(kCancelPoll)) != std::future_status::ready) {
    if (std::optional<v1::IngestEvent::Progress> progress = latest.Take()) {
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
  absl::StatusOr<std::vector<v1::DatasetInfo>> datasets = core_->ListDatasets(request->name());
  if (!datasets.ok()) return ToGrpc(datasets.status());
  for (v1::DatasetInfo& dataset : *datasets) *reply->add_datasets() = std::move(dataset);
  return grpc::Status::OK;
}

grpc::Status Service::DropDataset(grpc::ServerContext*, const v1::DropDatasetRequest* request,
                                  v1::DropDatasetReply* reply) {
  const absl::StatusOr<bool> removed = core_->DropDataset(request->name());
  if (!removed.ok()) return ToGrpc(removed.status());
  reply->set_store_removed(*removed);
  return grpc::Status::OK;
}

grpc::ServerBidiReactor<v1::SessionRequest, v1::SessionReply>* Service::Session(grpc::CallbackServerContext*) {
  return rpc::Session::Start(core_);
}

grpc::Status Service::Fetch(grpc::ServerContext*, const v1::FetchRequest* request,
                            grpc::ServerWriter<v1::FetchChunk>* writer) {
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
