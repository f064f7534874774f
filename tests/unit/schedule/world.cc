// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/schedule/world.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "tests/support/status_matchers.h"

namespace stoker::schedule::testing {

World::World(const WorldOptions& options)
    : options_(options),
      pool_(options.pages, options.fit),
      scheduler_({.lease_limit = options.lease_limit,
                  .session_limit = options.session_limit,
                  .parallel_parts = options.parallel_parts,
                  .least_part_bytes = options.least_part_bytes,
                  .busy_part_bytes = options.busy_part_bytes},
                 &pool_, this) {
  pool_.before_free = [this](const ExtentRef& extent) { BeforeFree(extent); };
}

World::~World() = default;

World::Client& World::client(SessionId session) {
  const auto it = clients_.find(session);
  if (it == clients_.end()) {
    ADD_FAILURE() << "session " << session << " is unknown";
    return clients_[session];
  }
  return it->second;
}

absl::Status World::Ended(SessionId session) {
  return client(session).ended.value_or(absl::UnknownError("still there"));
}

void World::UseId(uint64_t id, const char* what) {
  EXPECT_GT(id, 0u);
  EXPECT_TRUE(used_ids_.insert(id).second) << what << " " << id << " was used before";
}

// ---- what a test does ----

StreamSpec World::Add(const FakeStream& stream) {
  const StreamSpec spec = MakeSpec(stream);
  specs_[spec.key] = spec;
  return spec;
}

absl::StatusOr<SessionId> World::TryOpen(const StreamSpec& stream, const SessionSpec& session) {
  absl::StatusOr<SessionId> id = scheduler_.OpenSession(stream, session, now_);
  if (id.ok()) {
    UseId(*id, "session");
    Client& client = clients_[*id];
    client.spec = stream;
    client.next = session.position;
    client.end_epoch = session.end_epoch;
    const StreamId stream_id = scheduler_.StreamOf(*id);
    if (open_streams_.emplace(stream_id, stream.key).second) UseId(stream_id, "stream");
    EXPECT_EQ(open_streams_[stream_id], stream.key);
  }
  Judge();
  return id;
}

SessionId World::Open(const StreamSpec& stream, const SessionSpec& session) {
  const absl::StatusOr<SessionId> id = TryOpen(stream, session);
  EXPECT_OK(id);
  return id.value_or(0);
}

absl::Status World::TryAdvance(SessionId session, const std::vector<LeaseId>& release, uint32_t credits) {
  Client& client = this->client(session);
  const std::vector<LeaseId> returned = TakeBack(&client, release);
  client.started = true;
  client.credits += credits;
  absl::Status status = scheduler_.Advance(session, returned, credits, now_);
  if (!status.ok()) client.credits -= credits;
  Judge();
  return status;
}

void World::Advance(SessionId session, const std::vector<LeaseId>& release, uint32_t credits) {
  EXPECT_OK(TryAdvance(session, release, credits));
}

absl::Status World::TrySeek(SessionId session, const Position& position, const std::vector<LeaseId>& release,
                            uint32_t credits) {
  Client& client = this->client(session);
  const absl::StatusOr<uint64_t> steps = scheduler_.Seek(session, position, TakeBack(&client, release));
  if (steps.ok()) {
    EXPECT_EQ(*steps, client.spec.source->Steps(position.epoch));
    client.next = position;
    client.credits = 0;
    client.stale.insert(client.leases.begin(), client.leases.end());
    return TryAdvance(session, {}, credits);
  }
  Judge();
  return steps.status();
}

void World::AnnounceTo(SessionId session) {
  client(session).announce = true;
  scheduler_.AnnounceTo(session);
  Judge();
}

void World::Seek(SessionId session, const Position& position, const std::vector<LeaseId>& release, uint32_t credits) {
  EXPECT_OK(TrySeek(session, position, release, credits));
}

// A copy of `release`, which may be client->leases itself.
std::vector<LeaseId> World::TakeBack(Client* client, const std::vector<LeaseId>& release) {
  std::vector<LeaseId> returned = release;
  for (const LeaseId lease : returned) {
    const auto it = std::find(client->leases.begin(), client->leases.end(), lease);
    if (it == client->leases.end()) break;  // the scheduler sees the same
    client->leases.erase(it);
    ForgetLease(lease);
  }
  return returned;
}

void World::ForgetLease(LeaseId lease) {
  const auto it = leases_.find(lease);
  ASSERT_NE(it, leases_.end());
  // The extent may be gone when the scheduler ends a session: it returns the leases, and says so afterwards.
  if (const auto filling = fillings_.find(it->second.extent); filling != fillings_.end()) {
    filling->second.leases.erase(lease);
  }
  leases_.erase(it);
}

void World::Close(SessionId session) {
  Client& client = this->client(session);
  client.open = false;
  for (const LeaseId lease : client.leases) ForgetLease(lease);
  client.leases.clear();
  scheduler_.CloseSession(session);
  Judge();
}

void World::Drain(const absl::Status& reason) {
  draining_ = true;
  // Leases go with the sessions, in an order that is nobody's business.
  for (auto& [id, client] : clients_) {
    for (const LeaseId lease : client.leases) ForgetLease(lease);
    client.leases.clear();
  }
  scheduler_.Drain(reason);
  Judge();
}

LeaseId World::Pin(SessionId session, LeaseId lease) {
  const absl::StatusOr<Scheduler::Pinned> pinned = scheduler_.Pin(session, lease, now_);
  EXPECT_OK(pinned);
  if (!pinned.ok()) return 0;
  UseId(pinned->pin, "pin");
  EXPECT_EQ(KeyOf(pinned->extent), leases_.at(lease).extent);
  EXPECT_TRUE(pool_.IsLive(pinned->extent));
  leases_[pinned->pin] = {0, KeyOf(pinned->extent), leases_.at(lease).at};
  fillings_.at(KeyOf(pinned->extent)).leases.insert(pinned->pin);
  pins_.push_back(pinned->pin);
  Judge();
  return pinned->pin;
}

void World::Unpin(LeaseId pin) {
  pins_.erase(std::find(pins_.begin(), pins_.end(), pin));
  ForgetLease(pin);
  scheduler_.Unpin(pin);
  Judge();
}

void World::Forget(const StreamSpec& stream) {
  scheduler_.Forget(stream.store);
  Judge();
}

void World::GrowPool(uint64_t pages) {
  pool_.AddSegment(pages);
  scheduler_.DropUnreachable();
  Judge();
}

std::optional<Part> World::Take() {
  const std::optional<Part> part = scheduler_.NextPart();
  if (!part) return std::nullopt;
  if (given_back_.erase(part->id) == 0) UseId(part->id, "part");
  const auto it = fillings_.find(KeyOf(part->extent));
  if (it == fillings_.end()) {
    ADD_FAILURE() << "part " << part->id << " of an extent that nobody fills";
    return part;
  }
  Filling& filling = it->second;
  EXPECT_FALSE(filling.sealed);
  EXPECT_EQ(filling.at, part->at);
  if (filling.key.empty()) Name(&filling, specs_.at(open_streams_.at(part->stream)));
  EXPECT_EQ(filling.key, open_streams_.at(part->stream));
  EXPECT_EQ(part->extent.size, SourceOf(specs_.at(filling.key)).BytesAt(part->at));
  EXPECT_LE(part->first + part->count, filling.written.size());
  for (const auto& [key, other] : fillings_) {
    EXPECT_FALSE(&other != &filling && other.key == filling.key && other.at == filling.at) << "a batch is there twice";
  }
  for (const PartId id : in_flight_) {
    const Part& other = parts_.at(id);
    if (KeyOf(other.extent) != KeyOf(part->extent)) continue;
    EXPECT_TRUE(other.first + other.count <= part->first || part->first + part->count <= other.first)
        << "two workers write the same samples";
  }
  parts_[part->id] = *part;
  in_flight_.push_back(part->id);
  return part;
}

void World::Name(Filling* filling, const StreamSpec& spec) {
  filling->key = spec.key;
  filling->written.resize(SourceOf(spec).SamplesAt(filling->at));
}

void World::Answered(PartId part) { in_flight_.erase(std::find(in_flight_.begin(), in_flight_.end(), part)); }

void World::Finish(PartId id, const absl::Status& status) {
  Answered(id);
  const Part& part = parts_.at(id);
  Filling& filling = fillings_.at(KeyOf(part.extent));
  for (uint32_t i = part.first; i < part.first + part.count && status.ok(); ++i) {
    EXPECT_FALSE(filling.written[i]) << "sample " << i << " is made twice";
    filling.written[i] = true;
  }
  if (!status.ok()) {
    filling.failed = true;
    failures_.emplace(filling.key, filling.at);
  }
  scheduler_.PartDone(id, status, now_);
  Judge();
}

void World::Lose(PartId id, absl::string_view how) {
  Answered(id);
  const Part& part = parts_.at(id);
  const Filling& filling = fillings_.at(KeyOf(part.extent));
  failures_.emplace(filling.key, filling.at);  // perhaps: the judge does not count the losses of a sample
  scheduler_.PartLost(id, how, now_);
  Judge();
}

void World::GiveBack(PartId id) {
  Answered(id);
  given_back_.insert(id);
  scheduler_.PartReturned(id);
  Judge();
}

bool World::MakeOne() {
  const std::optional<Part> part = Take();
  if (part) Finish(part->id);
  return part.has_value();
}

int World::MakeAll() {
  int made = 0;
  for (const std::vector<PartId> rest = in_flight_; const PartId id : rest) {
    Finish(id);
    ++made;
  }
  while (MakeOne()) ++made;
  return made;
}

// ---- what it sees ----

int World::TimesMade(const StreamSpec& stream, const Position& at) const {
  return static_cast<int>(std::count(made_.begin(), made_.end(), absl::StrCat(stream.key, " ", ToString(at))));
}

std::vector<std::string> World::Cached() const {
  std::vector<std::string> cached;
  for (const auto& [key, filling] : fillings_) {
    if (filling.sealed) cached.push_back(absl::StrCat(filling.key, " ", ToString(filling.at)));
  }
  std::sort(cached.begin(), cached.end());
  return cached;
}

bool World::IsSealed(LeaseId lease) const {
  const auto filling = fillings_.find(leases_.at(lease).extent);
  return filling != fillings_.end() && filling->second.leases.contains(lease) && filling->second.sealed;
}

v1::StatusReply World::Status() const {
  v1::StatusReply status;
  scheduler_.FillStatus(now_, &status);
  return status;
}

// ---- what the scheduler says ----

void World::Send(SessionId session, v1::SessionReply reply) {
  Client& client = this->client(session);
  EXPECT_TRUE(client.open && !client.ended) << "session " << session << " is over, and yet is sent to";
  if (reply.has_ready()) {
    SendReady(session, &client, reply.ready());
    EXPECT_TRUE(reply.following().empty() || client.announce) << "several in a message";
    for (const v1::SessionReply::Ready& ready : reply.following()) SendReady(session, &client, ready);
    return;
  }
  if (reply.has_room_wanted()) {
    EXPECT_FALSE(client.room_wanted) << "session " << session << " is told twice";
    EXPECT_FALSE(client.leases.empty()) << "session " << session << " has nothing to give back";
    client.room_wanted = true;
    return;
  }
  ASSERT_TRUE(reply.has_end_of_epoch());
  EXPECT_EQ(client.next.epoch, reply.end_of_epoch().epoch());
  EXPECT_EQ(client.next.step, client.spec.source->Steps(client.next.epoch)) << "an end of epoch before its end";
  client.next = {client.next.epoch + 1, 0};
  client.said.push_back(absl::StrCat("end ", reply.end_of_epoch().epoch()));
}

void World::SendReady(SessionId session, Client* client, const v1::SessionReply::Ready& ready) {
  const Position at{ready.batch().epoch(), ready.batch().step()};
  EXPECT_EQ(ToString(at), ToString(client->next)) << "not the next batch";
  EXPECT_LT(at.step, client->spec.source->Steps(at.epoch));
  EXPECT_FALSE(client->IsDone());
  EXPECT_GT(client->credits, 0u) << "more than credits allow";
  EXPECT_LT(client->leases.size(), options_.lease_limit);
  UseId(ready.lease(), "lease");
  const ExtentRef extent = FakePool::Extent(ready.batch());
  EXPECT_TRUE(pool_.IsLive(extent));
  EXPECT_EQ(ready.batch().samples(), client->spec.source->SamplesAt(at));
  EXPECT_EQ(ready.batch().tensors_size(), 1);
  const auto it = fillings_.find(KeyOf(extent));
  ASSERT_NE(it, fillings_.end());
  Filling& filling = it->second;
  EXPECT_TRUE(filling.sealed || client->announce) << "a batch that is not made";
  EXPECT_FALSE(filling.failed) << "a batch that is known to fail";
  if (filling.key.empty()) Name(&filling, client->spec);
  if (!filling.sealed && filling.sequence == 0) filling.sequence = ready.batch().sequence();
  EXPECT_EQ(filling.key, client->spec.key);
  EXPECT_EQ(ToString(filling.at), ToString(at));
  EXPECT_EQ(filling.sequence, ready.batch().sequence());
  filling.leases.insert(ready.lease());
  leases_[ready.lease()] = {session, KeyOf(extent), at};
  client->leases.push_back(ready.lease());
  client->may_keep = ready.may_keep();
  --client->credits;
  ++client->next.step;
  client->said.push_back(ToString(at));
}

void World::End(SessionId session, const absl::Status& reason) {
  Client& client = this->client(session);
  EXPECT_TRUE(client.open && !client.ended) << "session " << session << " ends twice";
  EXPECT_FALSE(reason.ok());
  const bool failed_when_announced = std::any_of(client.leases.begin(), client.leases.end(), [&](LeaseId lease) {
    return !client.stale.contains(lease) && !IsSealed(lease) &&
           failures_.contains({client.spec.key, leases_.at(lease).at});
  });
  EXPECT_TRUE(draining_ || failures_.contains({client.spec.key, client.next}) || failed_when_announced ||
              !client.spec.source->LayoutAt(client.next).ok())
      << "session " << session << " ends at " << ToString(client.next) << " for nothing: " << reason;
  client.ended = reason;
  client.open = false;
  for (const LeaseId lease : client.leases) ForgetLease(lease);
  client.leases.clear();
}

void World::BeginFilling(const ExtentRef& extent, const Position& at) {
  EXPECT_TRUE(pool_.IsLive(extent));
  Filling filling;
  filling.at = at;
  EXPECT_TRUE(fillings_.emplace(KeyOf(extent), filling).second) << "an extent that is in use is filled";
}

void World::Seal(const ExtentRef& extent, uint64_t sequence) {
  UseId(sequence, "sequence");
  Filling& filling = fillings_.at(KeyOf(extent));
  EXPECT_FALSE(filling.sealed || filling.failed);
  EXPECT_TRUE(filling.sequence == 0 || filling.sequence == sequence) << "another sequence than was announced";
  EXPECT_EQ(std::count(filling.written.begin(), filling.written.end(), false), 0) << "sealed, and not wholly written";
  filling.sealed = true;
  filling.sequence = sequence;
  made_.push_back(absl::StrCat(filling.key, " ", ToString(filling.at)));
}

void World::BeforeFree(const ExtentRef& extent) {
  const auto it = fillings_.find(KeyOf(extent));
  ASSERT_NE(it, fillings_.end());
  for (const LeaseId lease : it->second.leases) {
    // Of a session that the scheduler ends here and now, End comes after.
    const SessionId holder = leases_.at(lease).session;
    // One that failed when it was announced goes first: JudgeClients sees to it that its sessions end.
    EXPECT_TRUE(holder != 0 && (scheduler_.StreamOf(holder) == 0 || !it->second.sealed))
        << "an extent is freed that lease " << lease << " holds";
  }
  for (const PartId id : in_flight_) {
    EXPECT_NE(KeyOf(parts_.at(id).extent), KeyOf(extent)) << "an extent is freed while a worker writes into it";
  }
  fillings_.erase(it);
}

void World::StreamClosed(StreamId stream) {
  const auto it = open_streams_.find(stream);
  ASSERT_NE(it, open_streams_.end()) << "stream " << stream << " is closed twice";
  for (const auto& [id, client] : clients_) {
    EXPECT_FALSE(client.open && !client.ended && client.spec.key == it->second && scheduler_.StreamOf(id) == stream);
  }
  closed_streams_.push_back(it->second);
  open_streams_.erase(it);
}

// ---- the judge ----

void World::Judge() {
  uint64_t making = 0, sealed = 0, leased = 0;
  for (const auto& [key, filling] : fillings_) {
    ++(!filling.sealed ? making : filling.leases.empty() ? sealed : leased);
  }
  EXPECT_EQ(pool_.live(), fillings_.size());
  const v1::StatusReply status = Status();
  EXPECT_EQ(status.arena().extents().making(), making);
  EXPECT_EQ(status.arena().extents().sealed(), sealed);
  EXPECT_EQ(status.arena().extents().leased(), leased);
  EXPECT_EQ(static_cast<size_t>(status.streams_size()), open_streams_.size());
  JudgeClients();
  if (options_.judge_waiting) JudgeWaiting();
}

void World::JudgeClients() {
  for (auto& [id, client] : clients_) {
    if (!client.open) {
      EXPECT_EQ(scheduler_.StreamOf(id), 0u) << "session " << id << " is over, and known";
      continue;
    }
    EXPECT_EQ(open_streams_[scheduler_.StreamOf(id)], client.spec.key);
    for (const LeaseId lease : client.leases) {
      const auto filling = fillings_.find(leases_.at(lease).extent);
      EXPECT_TRUE(client.stale.contains(lease) ||
                  (filling != fillings_.end() && filling->second.leases.contains(lease)))
          << "session " << id << " is not told that lease " << lease << " comes to nothing";
    }
    EXPECT_FALSE(client.started && client.next.step == client.spec.source->Steps(client.next.epoch))
        << "session " << id << " has not been told the end of epoch " << client.next.epoch;
  }
}

// When nothing is being made, who has least in hand and waits must not find that leases leave room for his batch.
void World::JudgeWaiting() {
  if (std::any_of(fillings_.begin(), fillings_.end(), [](const auto& entry) { return !entry.second.sealed; })) return;
  const Client* neediest = nullptr;
  for (const auto& [id, client] : clients_) {
    if (!client.open || !client.started || client.credits == 0 || client.IsDone()) continue;
    if (client.leases.size() >= options_.lease_limit) continue;
    if (neediest == nullptr || client.leases.size() < neediest->leases.size()) neediest = &client;
  }
  if (neediest == nullptr) return;
  const uint64_t bytes = SourceOf(neediest->spec).BytesAt(neediest->next);
  EXPECT_FALSE(pool_.WouldFit(bytes, neediest->spec.source->full_batch_bytes(),
                              [&](const ExtentRef& extent) { return !fillings_.at(KeyOf(extent)).leases.empty(); }))
      << "a session of stream " << neediest->spec.key << " waits for " << ToString(neediest->next)
      << ", nothing is being made, and there is room";
}

SessionId Consume(World* world, const StreamSpec& stream, uint64_t steps) {
  const SessionId session = world->Open(stream);
  for (uint64_t i = 0; i < steps; ++i) {
    world->ReleaseAll(session, 1);
    world->MakeAll();
  }
  world->ReleaseAll(session, 0);
  return session;
}

}  // namespace stoker::schedule::testing
