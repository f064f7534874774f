// SPDX-License-Identifier: Apache-2.0
// Who uploads, who is told, and when a copy may be written over.
#include "server/schedule/device_copies.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "tests/support/status_matchers.h"

namespace stoker::schedule::testing {
namespace {

using ::stoker::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr StreamId kStream = 9;
constexpr Position kAt = {0, 3};

// Notes what the sessions are told: "upload 11", "offer 11" (upload it for others), "use 11 memory", "free 11",
// "lost 11".
class Told : public Actions {
 public:
  void Send(SessionId session, v1::SessionReply reply) override {
    if (reply.has_copy_free()) {
      said[session].push_back(absl::StrCat(reply.copy_free().lost() ? "lost " : "free ", reply.copy_free().claim()));
      return;
    }
    const v1::SessionReply::Claimed& claimed = reply.claimed();
    const std::string what = claimed.offer() ? "offer " : claimed.memory().empty() ? "upload " : "use ";
    said[session].push_back(absl::StrCat(what, claimed.lease(), claimed.memory().empty() ? "" : " ", claimed.memory()));
  }
  void End(SessionId, const absl::Status&) override { ADD_FAILURE(); }
  void BeginFilling(const ExtentRef&, const Position&) override { ADD_FAILURE(); }
  void Seal(const ExtentRef&, uint64_t) override { ADD_FAILURE(); }
  void PartsReady() override { ADD_FAILURE(); }
  void StreamClosed(StreamId) override { ADD_FAILURE(); }

  std::vector<std::string> Take(SessionId session) { return std::exchange(said[session], {}); }

  std::map<SessionId, std::vector<std::string>> said;
};

class DeviceCopiesTest : public ::testing::Test {
 protected:
  absl::Status Claim(SessionId session, LeaseId lease, bool may_offer = true, Position at = kAt,
                     const std::string& device = "gpu") {
    v1::SessionRequest::Claim claim;
    claim.set_lease(lease);
    claim.set_device(device);
    claim.set_may_offer(may_offer);
    return copies_.Claim(session, kStream, at, claim);
  }
  absl::Status Offer(SessionId session, LeaseId claim, const std::string& memory = "here") {
    v1::SessionRequest::Offer offer;
    offer.set_claim(claim);
    offer.set_memory(memory);
    return copies_.Offer(session, offer);
  }

  Told told_;
  DeviceCopies copies_{&told_};
};

TEST_F(DeviceCopiesTest, FirstUploads_TheOthersUseItsCopy_EarlyAndLate) {
  EXPECT_OK(Claim(1, 11));
  EXPECT_THAT(told_.Take(1), ElementsAre("offer 11"));
  EXPECT_OK(Claim(2, 21));
  EXPECT_THAT(told_.Take(2), IsEmpty());
  EXPECT_OK(Offer(1, 11));
  EXPECT_THAT(told_.Take(2), ElementsAre("use 21 here"));
  EXPECT_OK(Claim(3, 31, /*may_offer=*/false));
  EXPECT_THAT(told_.Take(3), ElementsAre("use 31 here"));
}

TEST_F(DeviceCopiesTest, WithdrawnCopy_IsFreeWhenAllWhoUseItHaveReturnedTheirLeases) {
  EXPECT_OK(Claim(1, 11));
  copies_.LeaseReturned(11);  // the uploader's own, when its copy has ended
  EXPECT_OK(Claim(2, 21));
  EXPECT_OK(Claim(3, 31));
  EXPECT_OK(Offer(1, 11));
  EXPECT_OK(copies_.Withdraw(1, 11));
  EXPECT_THAT(told_.Take(1), ElementsAre("offer 11"));
  copies_.LeaseReturned(31);
  EXPECT_THAT(told_.Take(1), IsEmpty());
  copies_.LeaseReturned(21);
  EXPECT_THAT(told_.Take(1), ElementsAre("free 11"));
  EXPECT_EQ(copies_.size(), 0u);
}

TEST_F(DeviceCopiesTest, WhoAsksAfterItWasWithdrawn_UploadsAnew) {
  EXPECT_OK(Claim(1, 11));
  EXPECT_OK(Offer(1, 11));
  EXPECT_OK(copies_.Withdraw(1, 11));
  EXPECT_THAT(told_.Take(1), ElementsAre("offer 11", "free 11"));
  EXPECT_OK(Claim(2, 21));
  EXPECT_THAT(told_.Take(2), ElementsAre("offer 21"));
}

TEST_F(DeviceCopiesTest, UploadGivenUp_TheNextThatMayOfferDoesIt_AndTheOthersWaitForThat) {
  EXPECT_OK(Claim(1, 11));
  EXPECT_OK(Claim(2, 21, /*may_offer=*/false));
  EXPECT_OK(Claim(3, 31));
  EXPECT_OK(Claim(4, 41));
  EXPECT_OK(copies_.Withdraw(1, 11));
  EXPECT_THAT(told_.Take(1), ElementsAre("offer 11", "free 11"));
  EXPECT_THAT(told_.Take(2), ElementsAre("upload 21"));
  EXPECT_THAT(told_.Take(3), ElementsAre("offer 31"));
  EXPECT_THAT(told_.Take(4), IsEmpty());
  EXPECT_OK(Offer(3, 31));
  EXPECT_THAT(told_.Take(4), ElementsAre("use 41 here"));
}

TEST_F(DeviceCopiesTest, UploadersSessionEnds_WhoWaitsGoesOn_WhoUsesItKeepsIt) {
  EXPECT_OK(Claim(1, 11));
  EXPECT_OK(Offer(1, 11));
  EXPECT_OK(Claim(2, 21));
  EXPECT_OK(Claim(1, 12, true, {0, 4}));
  EXPECT_OK(Claim(2, 22, true, {0, 4}));
  (void)told_.Take(1);
  EXPECT_THAT(told_.Take(2), ElementsAre("use 21 here"));
  copies_.SessionClosed(1, {12});
  EXPECT_THAT(told_.Take(2), ElementsAre("offer 22"));
  EXPECT_OK(Claim(3, 31));
  EXPECT_THAT(told_.Take(3), ElementsAre("offer 31"));
  copies_.SessionClosed(2, {21, 22});
  copies_.SessionClosed(3, {31});
  EXPECT_THAT(told_.Take(1), IsEmpty());
  EXPECT_EQ(copies_.size(), 0u);
}

// Its process may go on, and read.
TEST_F(DeviceCopiesTest, UsersSessionEnds_TheCopyIsLost) {
  EXPECT_OK(Claim(1, 11));
  EXPECT_OK(Claim(2, 21));
  EXPECT_OK(Claim(3, 31));
  EXPECT_OK(Offer(1, 11));
  copies_.SessionClosed(2, {21});
  EXPECT_OK(copies_.Withdraw(1, 11));
  EXPECT_THAT(told_.Take(1), ElementsAre("offer 11"));
  copies_.LeaseReturned(31);
  EXPECT_THAT(told_.Take(1), ElementsAre("lost 11"));
}

TEST_F(DeviceCopiesTest, SessionOfOneWhoWaitsEnds_TheCopyIsFree) {
  EXPECT_OK(Claim(1, 11));
  EXPECT_OK(Claim(2, 21));
  copies_.SessionClosed(2, {21});
  EXPECT_OK(Offer(1, 11));
  EXPECT_OK(copies_.Withdraw(1, 11));
  EXPECT_THAT(told_.Take(1), ElementsAre("offer 11", "free 11"));
}

TEST_F(DeviceCopiesTest, WhoWaitsAndReturnsTheLease_IsNotTold) {
  EXPECT_OK(Claim(1, 11));
  EXPECT_OK(Claim(2, 21));
  copies_.LeaseReturned(21);
  EXPECT_OK(Offer(1, 11));
  EXPECT_THAT(told_.Take(2), IsEmpty());
}

TEST_F(DeviceCopiesTest, OneSessionWithTwoLeasesOfABatch_SharesWithItself_AndEndsCleanly) {
  EXPECT_OK(Claim(1, 11));
  EXPECT_OK(Claim(1, 12));
  EXPECT_OK(Offer(1, 11));
  EXPECT_OK(copies_.Withdraw(1, 11));
  EXPECT_THAT(told_.Take(1), ElementsAre("offer 11", "use 12 here"));
  copies_.SessionClosed(1, {12});
  EXPECT_THAT(told_.Take(1), IsEmpty());
  EXPECT_EQ(copies_.size(), 0u);
}

TEST_F(DeviceCopiesTest, OtherDevicesAndBatches_AreOthers) {
  EXPECT_OK(Claim(1, 11));
  EXPECT_OK(Claim(2, 21, true, kAt, "another gpu"));
  EXPECT_OK(Claim(3, 31, true, {1, 3}));
  EXPECT_THAT(told_.Take(2), ElementsAre("offer 21"));
  EXPECT_THAT(told_.Take(3), ElementsAre("offer 31"));
}

TEST_F(DeviceCopiesTest, WrongRequests_AreRefused_AndChangeNothing) {
  const auto invalid = [](absl::string_view text) {
    return StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(std::string(text)));
  };
  EXPECT_OK(Claim(1, 11));
  EXPECT_THAT(Claim(1, 11), invalid("claimed with before"));
  EXPECT_THAT(Claim(2, 21, true, kAt, ""), invalid("device"));
  EXPECT_THAT(Offer(2, 11), invalid("no claim of this session"));
  EXPECT_THAT(Offer(1, 12), invalid("no claim of this session"));
  EXPECT_THAT(Offer(1, 11, std::string(257, 'x')), invalid("offer.memory"));
  EXPECT_THAT(copies_.Withdraw(2, 11), invalid("no claim of this session"));
  EXPECT_OK(Offer(1, 11));
  EXPECT_THAT(Offer(1, 11), invalid("offered before"));
  EXPECT_OK(Claim(2, 21));
  EXPECT_OK(copies_.Withdraw(1, 11));
  EXPECT_THAT(copies_.Withdraw(1, 11), invalid("no claim of this session"));
  EXPECT_THAT(told_.Take(2), ElementsAre("use 21 here"));
}

TEST_F(DeviceCopiesTest, ASessionThatOffersAndOffers_IsNotLetWithoutEnd) {
  for (LeaseId lease = 1; lease <= 100; ++lease) EXPECT_OK(Claim(1, lease, true, {0, lease}));
  EXPECT_EQ(copies_.size(), 64u);
  EXPECT_EQ(told_.Take(1).back(), "upload 100");
}

// Sessions do what they may in any order; a model knows who was told what.
TEST_F(DeviceCopiesTest, AnyOrder_NothingIsFreeWhileItIsUsed_NobodyWaitsForNobody_NothingIsLeft) {
  std::mt19937 random(5);
  const auto draw = [&](size_t n) { return static_cast<size_t>(random() % n); };
  std::map<SessionId, std::set<LeaseId>> leases, claims;  // claims: "offer" was told, not withdrawn
  std::map<LeaseId, std::string> waiting, uses;           // of a lease: a mark; the memory that it uses
  std::map<LeaseId, bool> offered, withdrawn;
  std::set<std::string> unknown;  // memory that was used by sessions that ended
  LeaseId next = 1;
  const auto listen = [&] {
    for (auto& [session, said] : told_.said) {
      for (const std::string& line : std::exchange(said, {})) {
        const std::vector<std::string> words = absl::StrSplit(line, ' ');
        const LeaseId lease = std::stoull(words[1]);
        if (words[0] == "free" || words[0] == "lost") {
          ASSERT_TRUE(withdrawn.erase(lease)) << line;
          ASSERT_EQ(words[0] == "lost", unknown.contains(absl::StrCat("m", lease))) << line;
          for (const auto& [user, memory] : uses) ASSERT_NE(memory, absl::StrCat("m", lease)) << user;
          continue;
        }
        ASSERT_TRUE(waiting.erase(lease)) << line;
        if (words[0] == "offer") claims[session].insert(lease);
        if (words[0] == "use") uses[lease] = words[2];
      }
    }
  };
  const auto give_back = [&](LeaseId lease) {
    waiting.erase(lease);
    uses.erase(lease);
  };
  for (int round = 0; round < 20000; ++round) {
    const SessionId session = 1 + draw(4);
    std::set<LeaseId>& held = leases[session];
    std::set<LeaseId>& own = claims[session];
    switch (draw(8)) {
      case 0:
      case 1:
      case 2:
        if (held.size() == 5) break;
        held.insert(next);
        waiting[next] = "";
        ASSERT_OK(Claim(session, next, draw(3) > 0, {0, draw(3)}));
        ++next;
        break;
      case 3:
      case 4:
        if (held.empty()) break;
        give_back(*held.begin());
        copies_.LeaseReturned(*held.begin());
        held.erase(held.begin());
        break;
      case 5: {
        if (own.empty()) break;
        const LeaseId claim = *std::next(own.begin(), static_cast<ptrdiff_t>(draw(own.size())));
        if (std::exchange(offered[claim], true)) break;
        ASSERT_OK(Offer(session, claim, absl::StrCat("m", claim)));
        break;
      }
      case 6:
        if (own.empty()) break;
        withdrawn[*own.begin()] = true;
        ASSERT_OK(copies_.Withdraw(session, *own.begin()));
        own.erase(own.begin());
        break;
      case 7:
        if (draw(20) > 0) break;
        for (const LeaseId lease : held) {
          if (uses.contains(lease)) unknown.insert(uses[lease]);
          give_back(lease);
        }
        copies_.SessionClosed(session, {held.begin(), held.end()});
        held.clear();
        own.clear();
        break;
    }
    listen();
    // Who waits, waits for somebody's upload.
    size_t uploads = 0;
    for (const auto& [id, its] : claims) {
      for (const LeaseId claim : its) uploads += offered[claim] ? 0 : 1;
    }
    ASSERT_TRUE(uploads > 0 || waiting.empty());
  }
  for (auto& [session, held] : leases) copies_.SessionClosed(session, {held.begin(), held.end()});
  EXPECT_EQ(copies_.size(), 0u);
}

}  // namespace
}  // namespace stoker::schedule::testing
