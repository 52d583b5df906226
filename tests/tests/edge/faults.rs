//! A server of three goes wrong under a steady load: who asks does not notice, and the operator is told once.

use gatehouse_tests::{
    binaries,
    edge::{Edge, Setup},
    faulty::{Behaviour, Faulty},
    folder::Folder,
    process::children,
    steady::{Outcome, Plan, Steady, Verdict},
    wait,
};
use rustix::process::{Pid, Signal, kill_process};

const NAMES: [&str; 3] = ["one", "two", "three"];
/// Requests in all, and those with which the fault begins and ends.
const COUNT: usize = 600;
const BEGINS: usize = 100;
const ENDS: usize = 400;
/// Of so many requests one is a POST.
const SOME_POSTS: usize = 3;
const NO_POST: usize = 0;

/// How long a server may take for its answer. Where nothing depends upon it, longer than a busy machine takes.
const PATIENT: &str = "10s";
/// Shorter than a slow server takes.
const IMPATIENT: &str = "2s";

/// An edge over three servers, and a load on it.
struct Scene {
    servers: [Faulty; 3],
    setup: Setup,
    edge: Edge,
    load: Steady,
}

impl Scene {
    /// As far as the request with which the fault begins.
    #[track_caller]
    fn begin(response_timeout: &str, post_every: usize) -> Self {
        let servers = NAMES.map(Faulty::start);
        // A server that hangs is avoided as a busy one before many requests have failed there: two suffice.
        let setup = Setup::over_address(servers[0].address())
            .and_server(servers[1].address())
            .and_server(servers[2].address())
            .upstream(&format!(
                "response_timeout = \"{response_timeout}\"\nput_aside = \"200ms\"\nfailures = 2\n\
                 failing_statuses = [502, 503, 504]\n"
            ))
            .tables("[log]\nformat = \"off\"");
        let edge = setup.start();
        let load = load(&edge, NAMES.to_vec(), post_every);
        Self { servers, setup, edge, load }
    }

    /// The one that goes wrong where one does.
    fn one(&mut self) -> &mut Faulty {
        &mut self.servers[1]
    }

    /// One server at fault from now until the end of it, and then back.
    #[track_caller]
    fn fault(mut self, begin: impl FnOnce(&mut Faulty), end: impl FnOnce(&mut Faulty)) -> Seen {
        begin(self.one());
        self.load.reaches(ENDS);
        let address = self.one().address().to_string();
        self.edge.process().wait_for_line("that the server is put aside", |line| {
            (line.contains("a server is put aside") && line.contains(&address)).then_some(())
        });
        end(self.one());
        self.end()
    }

    /// One server that behaves so for a while.
    #[track_caller]
    fn behaving(self, behaviour: Behaviour) -> Seen {
        self.fault(|server| server.behave(behaviour), |server| server.behave(Behaviour::Good))
    }

    /// Once the load is over and the server is back.
    #[track_caller]
    fn end(mut self) -> Seen {
        let address = self.one().address().to_string();
        let seen = Seen::of(self.load.finish(), &self.servers);
        let told = |edge: &mut Edge, what: &str| {
            let about = |line: &&String| line.contains(what) && line.contains(&address);
            edge.process().lines().iter().filter(about).count()
        };
        // Its trial may come only with a further request.
        wait::until("the server is back", || {
            let _ = self.edge.get("/");
            (told(&mut self.edge, "a server is back") > 0).then_some(())
        });
        let told = ["a server is put aside", "a server is back"].map(|what| told(&mut self.edge, what));
        Seen { told, ..seen }
    }
}

/// The load, as far as the request with which the fault begins.
#[track_caller]
fn load(edge: &Edge, servers: Vec<&'static str>, post_every: usize) -> Steady {
    let load =
        Steady::start(Plan { connections: 20, post_every, ..Plan::new(edge.clear(), servers, 300, COUNT) });
    load.reaches(BEGINS);
    load
}

/// What clients, servers and the operator saw.
struct Seen {
    outcomes: Vec<Outcome>,
    asked: Vec<String>,
    /// How often that the server is put aside, and that it is back.
    told: [usize; 2],
}

impl Seen {
    /// Before the operator's log has been read.
    fn of(outcomes: Vec<Outcome>, servers: &[Faulty]) -> Self {
        Self { outcomes, asked: servers.iter().flat_map(Faulty::asked).collect(), told: [0, 0] }
    }

    fn lost(&self) -> Vec<&Outcome> {
        self.outcomes.iter().filter(|outcome| outcome.verdict != Verdict::Right).collect()
    }

    /// How many whole answers were not to the request.
    fn wrong(&self) -> usize {
        self.outcomes.iter().filter(|outcome| matches!(outcome.verdict, Verdict::Wrong(_))).count()
    }

    #[track_caller]
    fn assert_no_client_noticed(&self) {
        let lost = self.lost();
        assert!(lost.is_empty(), "{} of {COUNT} noticed, the first: {:#?}", lost.len(), lost[0]);
    }

    #[track_caller]
    fn assert_told_once(&self) {
        assert_eq!(
            self.told,
            [1, 1],
            "how often the operator was told that the server is put aside, and back"
        );
    }

    /// Beside a fifth of the requests the budget holds a hundred that were saved in better times, and three at once are always
    /// in it.
    #[track_caller]
    fn assert_within_the_budget(&self) {
        let asked = self.asked.len();
        assert!(
            asked <= COUNT + COUNT / 5 + 100,
            "the servers were asked {asked} times for {COUNT} requests"
        );
    }

    #[track_caller]
    fn assert_no_post_came_twice(&self) {
        let mut posts: Vec<_> = self.asked.iter().filter(|asked| asked.starts_with("POST")).collect();
        let all = posts.len();
        posts.sort();
        posts.dedup();
        assert_eq!(posts.len(), all, "RFC 9110 §9.2.2");
    }
}

#[test]
fn a_server_that_is_killed_is_noticed_by_no_client() {
    let seen = Scene::begin(PATIENT, NO_POST).fault(Faulty::kill, Faulty::start_again);
    seen.assert_no_client_noticed();
    seen.assert_told_once();
    seen.assert_within_the_budget();
}

#[test]
fn a_server_that_hangs_is_noticed_by_no_client() {
    let seen = Scene::begin(IMPATIENT, NO_POST).fault(|server| server.hang(), |server| server.go_on());
    seen.assert_no_client_noticed();
    seen.assert_told_once();
    seen.assert_within_the_budget();
}

#[test]
fn a_server_that_has_become_slow_is_noticed_by_no_client() {
    let seen = Scene::begin(IMPATIENT, NO_POST).behaving(Behaviour::Slow);
    seen.assert_no_client_noticed();
    seen.assert_told_once();
    seen.assert_within_the_budget();
}

#[test]
fn a_server_that_refuses_connections_is_noticed_by_no_client() {
    let seen = Scene::begin(PATIENT, NO_POST).behaving(Behaviour::Refusing);
    seen.assert_no_client_noticed();
    seen.assert_told_once();
    seen.assert_within_the_budget();
}

#[test]
fn a_server_that_speaks_no_http_is_noticed_by_no_client() {
    let seen = Scene::begin(PATIENT, NO_POST).behaving(Behaviour::Garbage);
    seen.assert_no_client_noticed();
    seen.assert_told_once();
    seen.assert_within_the_budget();
}

#[test]
fn a_server_that_answers_503_is_noticed_by_no_client() {
    let seen = Scene::begin(PATIENT, NO_POST).behaving(Behaviour::Erring);
    seen.assert_no_client_noticed();
    seen.assert_told_once();
    seen.assert_within_the_budget();
}

#[test]
fn a_server_that_breaks_off_its_answers_gets_few_requests_and_none_is_passed_off_as_whole() {
    let seen = Scene::begin(PATIENT, NO_POST).behaving(Behaviour::Resetting);
    assert_eq!(seen.wrong(), 0);
    // What has begun cannot be asked for again. Without being put aside the server would have lost a third of 300.
    let lost = seen.lost().len();
    assert!(lost <= 25, "{lost} were lost");
    seen.assert_within_the_budget();
}

#[test]
fn what_a_server_may_have_acted_upon_is_not_sent_to_another() {
    for seen in [
        Scene::begin(PATIENT, SOME_POSTS).fault(Faulty::kill, Faulty::start_again),
        Scene::begin(IMPATIENT, SOME_POSTS).fault(|server| server.hang(), |server| server.go_on()),
        Scene::begin(PATIENT, SOME_POSTS).behaving(Behaviour::Garbage),
    ] {
        seen.assert_no_post_came_twice();
        assert_eq!(seen.wrong(), 0);
        let lost = seen.lost();
        assert!(lost.iter().all(|outcome| outcome.asked.method == "POST"), "{:#?}", lost[0]);
        assert!(lost.len() <= 25, "a server that is put aside gets few: {}", lost.len());
    }
}

#[test]
fn once_all_servers_are_back_every_request_is_answered() {
    let mut scene = Scene::begin(PATIENT, SOME_POSTS);
    scene.servers.iter_mut().for_each(Faulty::kill);
    scene.load.reaches(ENDS);
    scene.servers.iter_mut().for_each(Faulty::start_again);
    let back = scene.load.due();
    let seen = scene.end();
    assert_eq!(seen.wrong(), 0);
    seen.assert_no_post_came_twice();
    seen.assert_told_once();
    let lost_after = seen.outcomes[back..].iter().find(|outcome| outcome.verdict != Verdict::Right);
    assert!(lost_after.is_none(), "{lost_after:#?}");
}

#[test]
fn when_all_servers_are_too_slow_they_are_asked_hardly_more_often() {
    let scene = Scene::begin("500ms", NO_POST);
    scene.servers.iter().for_each(|server| server.behave(Behaviour::Slow));
    let outcomes = scene.load.finish();
    let seen = Seen::of(outcomes, &scene.servers);
    seen.assert_within_the_budget();
    let in_time = Verdict::Failed("504".to_owned());
    let other = seen.lost().into_iter().find(|outcome| outcome.verdict != in_time);
    assert!(other.is_none(), "{other:#?}");
}

#[test]
fn reloads_under_load_are_noticed_by_no_client() {
    let mut scene = Scene::begin(PATIENT, SOME_POSTS);
    let settings = [scene.setup.clone().upstream("connections = 100\n").text(), scene.setup.text()];
    for (number, at) in (BEGINS..COUNT).step_by(20).enumerate() {
        scene.load.reaches(at);
        let said = scene.edge.reload(&settings[number % 2]);
        assert!(said.contains("reloaded"), "{said}");
    }
    let outcomes = scene.load.finish();
    let lost = outcomes.iter().find(|outcome| outcome.verdict != Verdict::Right);
    assert!(lost.is_none(), "{lost:#?}");
    assert_eq!(scene.servers.iter().map(|server| server.asked().len()).sum::<usize>(), COUNT);
}

#[test]
fn a_reload_forgets_nothing_of_a_server_that_hangs() {
    let mut scene = Scene::begin(IMPATIENT, NO_POST);
    scene.one().hang();
    let settings = [scene.setup.clone().upstream("connections = 100\n").text(), scene.setup.text()];
    for (number, at) in (BEGINS..ENDS).step_by(60).enumerate() {
        scene.load.reaches(at);
        scene.edge.reload(&settings[number % 2]);
    }
    let seen = scene.fault(|_| {}, |server| server.go_on());
    seen.assert_no_client_noticed();
    seen.assert_told_once();
}

/// Three instances of a command, and a load on them until its end; `during` is called when the fault would begin.
#[track_caller]
fn instances(during: impl FnOnce(&mut Edge, &Setup, &Steady)) -> Vec<Outcome> {
    let folder = Folder::new();
    let asked = folder.path().join("asked");
    let program = binaries::faulty_server();
    let setup = Setup::over_server("command:app").tables(&format!(
        "[commands.app]\nrun = [{program:?}, \"app\", \"127.0.0.1:{{port}}\", \"127.0.0.1:0\", {asked:?}]\n\
         ready = \"/health\"\nready_interval = \"100ms\"\ninstances = 3\n[log]\nformat = \"off\""
    ));
    let mut edge = setup.start();
    let load = load(&edge, vec!["app"], NO_POST);
    during(&mut edge, &setup, &load);
    load.finish()
}

#[track_caller]
fn assert_all_right(outcomes: &[Outcome]) {
    let lost: Vec<_> = outcomes.iter().filter(|outcome| outcome.verdict != Verdict::Right).collect();
    assert!(lost.is_empty(), "{} of {COUNT} noticed, the first: {:#?}", lost.len(), lost[0]);
}

#[test]
fn an_instance_that_is_killed_is_noticed_by_no_client_and_started_again() {
    let outcomes = instances(|edge, _, _| {
        let before = children(edge.id());
        kill(before[1]);
        wait::until("another is started in its place", || {
            let now = children(edge.id());
            (now.len() == 3 && !now.contains(&before[1])).then_some(())
        });
    });
    assert_all_right(&outcomes);
}

#[test]
fn a_change_of_the_number_of_instances_is_noticed_by_no_client() {
    let outcomes = instances(|edge, setup, load| {
        for (number, at) in (BEGINS..COUNT).step_by(100).enumerate() {
            load.reaches(at);
            let count = ["instances = 1", "instances = 4"][number % 2];
            let said = edge.reload(&setup.text().replace("instances = 3", count));
            assert!(said.contains("reloaded"), "{said}");
        }
    });
    assert_all_right(&outcomes);
}

fn kill(id: u32) {
    let id = i32::try_from(id).ok().and_then(Pid::from_raw).unwrap();
    kill_process(id, Signal::KILL).unwrap();
}
