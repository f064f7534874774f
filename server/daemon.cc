// SPDX-License-Identifier: Apache-2.0
#include "server/daemon.h"

#include <errno.h>
#include <grp.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/random/random.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "server/arena/capacity.h"
#include "server/batch/recipe.h"
#include "server/log.h"
#include "shared/base/paths.h"
#include "shared/base/posix.h"
#include "shared/base/size.h"
#include "shared/base/status_macros.h"
#include "shared/base/version.h"

namespace stoker {
namespace {

constexpr char kServiceName[] = "stoker.v1.Stoker";
constexpr int kIngestNice = 10;                                 // batches come first
constexpr absl::Duration kLastWords = absl::Milliseconds(100);  // for statuses of calls that have ended

std::string NewInstanceId() { return absl::StrFormat("%016x", absl::Uniform<uint64_t>(absl::BitGen())); }

// Threads of the daemon make nothing with --workers=0 but batches; parsing has a process or thread all the same.
workers::PoolOptions IngestPool(const DaemonOptions& options) {
  return {.program = options.workers == 0 ? "" : options.worker_program,
          .count = options.workers,
          .role = "ingest",
          .nice = kIngestNice,
          .deadline = options.part_deadline,
          .warn = [](absl::string_view message) { log::Warning(message); }};
}

}  // namespace

Daemon::Daemon(const DaemonOptions& options)
    : options_(options), instance_id_(NewInstanceId()), started_(absl::Now()), service_(this) {}

absl::StatusOr<std::unique_ptr<Daemon>> Daemon::Start(const DaemonOptions& options, std::function<void()> on_serving) {
  std::unique_ptr<Daemon> daemon(new Daemon(options));
  STOKER_ASSIGN_OR_RETURN(SocketLock lock, SocketLock::Take(options.socket));
  daemon->socket_lock_.emplace(std::move(lock));
  STOKER_ASSIGN_OR_RETURN(daemon->catalog_, ingest::DatasetCatalog::Load(options.cache_dir));
  for (const std::string& problem : daemon->catalog_->problems()) daemon->Notice(problem);
  STOKER_RETURN_IF_ERROR(daemon->StartArena());
  STOKER_RETURN_IF_ERROR(daemon->StartLanes());
  daemon->engine_ =
      std::make_unique<Engine>(EngineOptions{.instance_id = daemon->instance_id_,
                                             .worker_program = options.workers == 0 ? "" : options.worker_program,
                                             .workers = options.workers,
                                             .part_deadline = options.part_deadline,
                                             .lease_limit = options.lease_limit,
                                             .session_limit = options.session_limit,
                                             .lanes = daemon->lanes_ != nullptr},
                               &daemon->loop_, daemon->arena_.get());
  daemon->unit_runner_ = std::make_unique<workers::PoolUnitRunner>(IngestPool(options), &daemon->loop_);
  daemon->loop_.Post([engine = daemon->engine_.get()] { engine->Start(); });
  daemon->loop_thread_ = std::thread([loop = &daemon->loop_] { loop->Run(); });
  STOKER_RETURN_IF_ERROR(daemon->StartServer());
  daemon->prefault_thread_ =
      std::thread([d = daemon.get(), on_serving = std::move(on_serving)] { d->Prefault(on_serving); });
  return daemon;
}

absl::Status Daemon::StartArena() {
  const auto swept = segment::SweepOrphans(options_.shm_dir);
  if (swept.ok() && !swept->empty()) log::Warning("removed segments of dead daemons", {{"count", swept->size()}});
  const bool automatic = options_.arena_bytes == "auto";
  const absl::StatusOr<arena::HostMemory> host = arena::ReadHostMemory(options_.shm_dir);
  if (!host.ok()) return automatic ? StartArenaWithoutShm(host.status()) : host.status();
  absl::StatusOr<arena::ArenaSize> size = arena::ChooseArenaSize(options_.arena_bytes, options_.segment_bytes, *host);
  if (!size.ok()) return automatic ? StartArenaWithoutShm(size.status()) : size.status();
  absl::StatusOr<std::unique_ptr<arena::Arena>> arena;
  while (true) {
    arena = arena::Arena::Create({.directory = options_.shm_dir,
                                  .instance_id = instance_id_,
                                  .capacity_bytes = size->capacity_bytes,
                                  .segment_bytes = std::min(size->segment_bytes, size->capacity_bytes)});
    // Others may have taken what was free a moment ago.
    const bool retry =
        automatic && absl::IsResourceExhausted(arena.status()) && size->capacity_bytes / 2 >= arena::kSmallestArena;
    if (!retry) break;
    Notice(absl::StrCat("arena of ", FormatSize(size->capacity_bytes),
                        " does not fit, trying half of it: ", arena.status().message()));
    size->capacity_bytes = size->capacity_bytes / 2 / 4096 * 4096;
  }
  if (!arena.ok()) return automatic ? StartArenaWithoutShm(arena.status()) : arena.status();
  arena_ = *std::move(arena);
  return absl::OkStatus();
}

absl::Status Daemon::StartArenaWithoutShm(const absl::Status& why) {
  constexpr uint64_t kMost = uint64_t{1} << 30;
  STOKER_ASSIGN_OR_RETURN(const arena::HostMemory host, arena::ReadHostMemory("/"));
  uint64_t most = std::min(host.available / 8, kMost);
  if (host.cgroup_free) most = std::min(most, *host.cgroup_free / 2);
  const uint64_t bytes = std::max(most, arena::kSmallestArena) / 4096 * 4096;
  Notice(absl::StrCat("no shared memory to be had (", why.message(), "): batches are sent inline over gRPC, from ",
                      FormatSize(bytes), " of private memory; to map them without a copy, make room in ",
                      options_.shm_dir, " or give another --shm-dir"));
  STOKER_ASSIGN_OR_RETURN(
      arena_, arena::Arena::Create(
                  {.directory = "", .instance_id = instance_id_, .capacity_bytes = bytes, .segment_bytes = bytes}));
  return absl::OkStatus();
}

// Without them everything goes by the sessions' streams.
absl::Status Daemon::StartLanes() {
  const std::string path = LanePath(options_.socket);
  const mode_t umask = ::umask(0117);  // so that nobody slips in before FinishSocket
  absl::StatusOr<std::unique_ptr<rpc::LaneListener>> lanes = rpc::LaneListener::Listen(path, &loop_);
  ::umask(umask);
  if (!lanes.ok()) {
    Notice(absl::StrCat("no lanes for sessions, batches take more processor time: ", lanes.status().message()));
    return absl::OkStatus();
  }
  lanes_ = *std::move(lanes);
  loop_.Post([this] { lanes_->Start([this](const v1::LaneHello& hello) { return engine_->Find(hello); }); });
  return FinishSocket(path);
}

absl::Status Daemon::StartServer() {
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  builder.AddListeningPort("unix:" + options_.socket, grpc::InsecureServerCredentials());
  int tcp_port = -1;
  if (!options_.listen.empty()) {
    builder.AddListeningPort(options_.listen, grpc::InsecureServerCredentials(), &tcp_port);
  }
  builder.RegisterService(&service_);
  const mode_t umask = ::umask(0117);  // so that nobody slips in before FinishSocket
  server_ = builder.BuildAndStart();
  ::umask(umask);
  if (server_ == nullptr || tcp_port == 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("listen: ", options_.socket, options_.listen.empty() ? "" : " and ", options_.listen,
                     ": cannot be bound; is the port in use, the directory writable?"));
  }
  keep_awake_.emplace(server_.get());
  server_->GetHealthCheckService()->SetServingStatus(false);
  server_->GetHealthCheckService()->SetServingStatus(kServiceName, false);
  return FinishSocket(options_.socket);
}

absl::Status Daemon::FinishSocket(const std::string& path) const {
  if (!options_.socket_group.empty()) {
    const group* const entry = ::getgrnam(options_.socket_group.c_str());
    if (entry == nullptr) {
      return absl::InvalidArgumentError(absl::StrCat("socket_group: there is no group ", options_.socket_group));
    }
    if (::chown(path.c_str(), static_cast<uid_t>(-1), entry->gr_gid) != 0) {
      return ErrnoStatus(errno, "give the socket to group " + options_.socket_group, path);
    }
  }
  if (::chmod(path.c_str(), 0660) != 0) return ErrnoStatus(errno, "chmod", path);
  return absl::OkStatus();
}

void Daemon::Prefault(const std::function<void()>& on_serving) {
  const absl::Status status = arena_->Prefault(stopping_);
  if (!status.ok()) Notice(absl::StrCat("the arena is not prefaulted, first batches are slow: ", status.message()));
  if (stopping_.load()) return;
  serving_.store(true);
  server_->GetHealthCheckService()->SetServingStatus(true);
  server_->GetHealthCheckService()->SetServingStatus(kServiceName, true);
  const uint64_t capacity = loop_.Call([this] { return arena_->capacity_bytes(); });  // it may be replacing segments
  log::Info("serving", {{"socket", options_.socket}, {"arena", FormatSize(capacity)}, {"instance", instance_id_}});
  on_serving();
}

void Daemon::Stop() {
  if (stopping_.exchange(true)) return;
  if (prefault_thread_.joinable()) prefault_thread_.join();  // it ends early, and does not say SERVING after this
  serving_.store(false);
  if (server_) {
    server_->GetHealthCheckService()->SetServingStatus(false);
    server_->GetHealthCheckService()->SetServingStatus(kServiceName, false);
    if (loop_thread_.joinable()) {
      loop_.Call([this] {
        engine_->Drain(absl::UnavailableError("the daemon is stopping"));
        unit_runner_->Stop();
      });
    }
    // Not left to Shutdown, which waits for idle clients to hang up too: they look up but every five seconds.
    if (!service_.AwaitNoCalls(absl::Now() + options_.drain_deadline)) {
      log::Warning("calls in flight at the drain deadline are cancelled");
    }
    keep_awake_.reset();
    server_->Shutdown(absl::ToChronoTime(absl::Now() + kLastWords));
    server_->Wait();
  }
  if (!loop_thread_.joinable()) return;
  // Workers go on the loop's thread, which started them, and before the loop does.
  loop_.Call([this] {
    lanes_.reset();
    engine_.reset();
  });
  loop_.Stop();
  loop_thread_.join();
}

Daemon::~Daemon() { Stop(); }

void Daemon::Notice(const std::string& text) {
  log::Warning(text);
  absl::MutexLock lock(&mutex_);
  notices_.push_back(text);
}

// ---- rpc::Core ----

v1::StatusReply Daemon::GetStatus() {
  v1::StatusReply status = loop_.Call([this] {
    v1::StatusReply reply;
    if (engine_) engine_->FillStatus(&reply);
    unit_runner_->FillStatus(&reply);
    for (const auto& [name, entry] : catalog_->entries()) {
      *reply.add_datasets() = ingest::DatasetCatalog::Describe(entry, /*details=*/false);
    }
    return reply;
  });
  status.set_state(stopping_.load()  ? v1::StatusReply::DRAINING
                   : serving_.load() ? v1::StatusReply::SERVING
                                     : v1::StatusReply::STARTING);
  status.set_version(kVersion);
  status.set_instance_id(instance_id_);
  status.set_uptime_seconds(absl::ToDoubleSeconds(absl::Now() - started_));
  status.set_pid(::getpid());
  status.mutable_shm()->set_path(options_.shm_dir);
  if (const auto usage = segment::GetShmUsage(options_.shm_dir); usage.ok()) {
    status.mutable_shm()->set_size_bytes(usage->size_bytes);
    status.mutable_shm()->set_used_bytes(usage->used_bytes);
    status.mutable_shm()->set_free_bytes(usage->free_bytes);
  }
  absl::MutexLock lock(&mutex_);
  for (const std::string& notice : notices_) status.add_notices(notice);
  return status;
}

// One ingest of a name at a time: a second one, after an impatient Ctrl-C say, finds what the first one left.
absl::Status Daemon::WaitForTurn(const std::string& name, const std::function<bool()>& cancelled) {
  absl::MutexLock lock(&mutex_);
  const auto free = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !ingesting_.contains(name); };
  while (!mutex_.AwaitWithTimeout(absl::Condition(&free), absl::Milliseconds(20))) {
    if (cancelled() || stopping_.load()) {
      return absl::CancelledError(absl::StrCat("ingest: cancelled while another ingest of ", name, " was running"));
    }
  }
  ingesting_.insert(name);
  return absl::OkStatus();
}

absl::StatusOr<v1::IngestEvent::Done> Daemon::Ingest(
    const v1::IngestRequest& request, const std::function<void(const v1::IngestEvent::Progress&)>& progress,
    const std::function<bool()>& cancelled) {
  STOKER_RETURN_IF_ERROR(ingest::CheckDatasetName(request.name()));
  STOKER_RETURN_IF_ERROR(WaitForTurn(request.name(), cancelled));
  ingest::IngestParams params;
  params.name = request.name();
  params.sources.assign(request.source().begin(), request.source().end());
  params.options = request.options();
  params.cache_dir = options_.cache_dir;
  params.roots = options_.roots;
  params.hash_threads = std::max(options_.workers, 1);
  ingest::IngestJob job(std::move(params), unit_runner_.get(), progress);
  std::atomic<bool> over{false};
  std::thread watcher([&] {
    while (!over.load() && !cancelled() && !stopping_.load()) absl::SleepFor(absl::Milliseconds(20));
    if (!over.load()) job.Cancel();
  });
  const absl::StatusOr<ingest::IngestResult> result = job.Run();
  over.store(true);
  watcher.join();
  {
    absl::MutexLock lock(&mutex_);
    ingesting_.erase(request.name());
  }
  if (!result.ok()) {
    log::Warning("ingest failed", {{"dataset", request.name()}, {"reason", result.status().ToString()}});
    return result.status();
  }
  log::Info("ingested", {{"dataset", request.name()},
                         {"samples", result->manifest.samples()},
                         {"seconds", result->seconds},
                         {"unchanged", result->unchanged}});
  v1::IngestEvent::Done done;
  *done.mutable_dataset() = loop_.Call([&] {
    PutDataset(*result);
    return ingest::DatasetCatalog::Describe(*catalog_->Find(request.name()), /*details=*/true);
  });
  done.set_seconds(result->seconds);
  done.set_unchanged(result->unchanged);
  return done;
}

void Daemon::PutDataset(const ingest::IngestResult& result) {
  const ingest::DatasetCatalog::Entry* const before = catalog_->Find(result.dataset.name());
  if (before != nullptr && before->dataset.store() != result.dataset.store()) {
    outdated_stores_.insert(before->dataset.store());
  }
  outdated_stores_.erase(result.dataset.store());
  catalog_->Put(result.dataset, result.manifest);
  RemoveOutdatedStores();
}

void Daemon::RemoveOutdatedStores() {
  absl::erase_if(outdated_stores_, [this](const std::string& store) {
    if (engine_->StoreInUse(store)) return false;
    engine_->ForgetStore(store);
    const absl::StatusOr<bool> removed = catalog_->RemoveStoreIfUnreferenced(store);
    if (!removed.ok()) log::Warning("an outdated store stays", {{"reason", removed.status().message()}});
    return true;
  });
}

absl::StatusOr<std::vector<v1::DatasetInfo>> Daemon::ListDatasets(const std::string& name) {
  return loop_.Call([&]() -> absl::StatusOr<std::vector<v1::DatasetInfo>> {
    std::vector<v1::DatasetInfo> datasets;
    for (const auto& [key, entry] : catalog_->entries()) {
      if (name.empty() || key == name) datasets.push_back(ingest::DatasetCatalog::Describe(entry, /*details=*/true));
    }
    if (datasets.empty() && !name.empty()) return absl::NotFoundError(absl::StrCat("there is no data set ", name));
    return datasets;
  });
}

absl::StatusOr<bool> Daemon::DropDataset(const std::string& name) {
  return loop_.Call([&] { return Drop(name); });
}

absl::StatusOr<bool> Daemon::Drop(const std::string& name) {
  const ingest::DatasetCatalog::Entry* const entry = catalog_->Find(name);
  if (entry == nullptr) return absl::NotFoundError(absl::StrCat("drop: there is no data set ", name));
  const std::string store = entry->dataset.store();
  if (engine_->StoreInUse(store)) {
    return absl::FailedPreconditionError(
        absl::StrCat("drop: data set ", name, " is being read; `stokerctl status` says by whom"));
  }
  engine_->ForgetStore(store);
  return catalog_->Drop(name);
}

absl::StatusOr<Engine::Request> Daemon::FindDataset(const v1::SessionRequest::Open& request) {
  const ingest::DatasetCatalog::Entry* const entry = catalog_->Find(request.dataset());
  if (entry == nullptr) {
    return absl::NotFoundError(
        absl::StrCat("open: there is no data set \"", request.dataset(), "\"; `stokerctl datasets` lists them"));
  }
  if (!request.store().empty() && request.store() != entry->dataset.store()) {
    return absl::FailedPreconditionError(
        absl::StrCat("open: data set ", request.dataset(), " is store ", entry->dataset.store(), " now, not ",
                     request.store(), ": its content or options have changed since the state was saved"));
  }
  Engine::Request result;
  result.open = request;
  result.store_dir = entry->store_dir;
  return result;
}

// The batches of a session, shared with other sessions of its stream. Not on the loop: stores are opened and plans
// made.
absl::Status Daemon::PrepareBatches(Engine::Request* request) {
  STOKER_ASSIGN_OR_RETURN(std::shared_ptr<const batch::BatchMaker> maker,
                          batch::BatchMaker::Create(request->store_dir, request->open.recipe()));
  STOKER_ASSIGN_OR_RETURN(const v1::Plan plan, plan::CompletePlan(request->open.plan()));
  request->recipe_digest = batch::Digest(maker->recipe());
  request->plan_digest = batch::Digest(plan);
  request->key = absl::StrCat(maker->manifest().id(), "/", request->recipe_digest, "/", request->plan_digest);
  request->batches = loop_.Call([&] { return engine_->FindBatches(request->key); });
  if (request->batches != nullptr) {
    (void)request->batches->Steps(request->open.position().epoch());  // plans it, which the loop has no time for
    return absl::OkStatus();
  }
  STOKER_ASSIGN_OR_RETURN(request->batches,
                          batch::PlannedBatches::Create(std::move(maker), plan, request->open.position().epoch()));
  return absl::OkStatus();
}

void Daemon::OpenSession(std::shared_ptr<rpc::SessionPeer> peer, const v1::SessionRequest::Open& open) {
  absl::StatusOr<Engine::Request> request = loop_.Call([&] { return FindDataset(open); });
  if (request.ok()) {
    if (const absl::Status status = PrepareBatches(&*request); !status.ok()) request = status;
  }
  loop_.Post([this, peer = std::move(peer), request = std::move(request)] {
    if (request.ok()) {
      engine_->OpenSession(peer, *request);
    } else {
      peer->End(request.status());
    }
  });
}

void Daemon::HandleRequest(std::shared_ptr<rpc::SessionPeer> peer, v1::SessionRequest request) {
  if (request.has_seek()) {
    const std::shared_ptr<const batch::PlannedBatches> batches =
        loop_.Call([&] { return engine_ ? engine_->BatchesOf(peer.get()) : nullptr; });
    if (batches == nullptr) return;                           // it has ended
    (void)batches->Steps(request.seek().position().epoch());  // plans the epoch, which the loop has no time for
  }
  loop_.Post([this, peer = std::move(peer), request = std::move(request)] {
    peer->InOrder(request.number(), [this, peer, request] { HandleOnLoop(peer.get(), request); });
  });
}

void Daemon::HandleOnLoop(rpc::SessionPeer* peer, const v1::SessionRequest& request) {
  if (engine_) engine_->HandleRequest(peer, request);
}

void Daemon::CloseSession(std::shared_ptr<rpc::SessionPeer> peer) {
  loop_.Post([this, peer = std::move(peer)] {
    peer->Detach();
    if (!engine_) return;
    engine_->CloseSession(peer.get());
    RemoveOutdatedStores();
  });
}

absl::StatusOr<std::unique_ptr<rpc::PinnedBatch>> Daemon::PinBatch(const v1::FetchRequest& request) {
  class Pinned : public rpc::PinnedBatch {
   public:
    Pinned(Daemon* daemon, const Engine::Pinned& pinned) : daemon_(daemon), pinned_(pinned) {}
    ~Pinned() override {
      daemon_->loop_.Post([daemon = daemon_, pin = pinned_.pin] {
        if (daemon->engine_) daemon->engine_->Unpin(pin);
      });
    }
    absl::Span<const uint8_t> bytes() const override { return pinned_.bytes; }

   private:
    Daemon* const daemon_;
    const Engine::Pinned pinned_;
  };
  const absl::StatusOr<Engine::Pinned> pinned = loop_.Call([&] { return engine_->Pin(request); });
  if (!pinned.ok()) return pinned.status();
  return std::make_unique<Pinned>(this, *pinned);
}

}  // namespace stoker
