//! From what a step costs to how many users a server bears.
//!
//! A user takes a step, thinks, and takes the next. With `N` users and a visit that takes `T` (its thinking and its answers), visits
//! begin at a rate of `N / T` (Little's law). Each step has a cost of processor time by program, when caches answer what they may and
//! when they do not, measured one step at a time; the share that the edge's cache answers is that of the smallest crowd. So
//!
//! ```text
//! processors in use = at rest + N / T × Σ steps (share × cost as a hit + (1 − share) × cost as a miss)
//! ```
//! It knows nothing of queues: near the limit answers take longer, and `T` with them.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, bail};
use tokio::{task::JoinSet, time::sleep};

use super::{
    crowd::{Account, next_visitor},
    programs::{Cpu, Programs},
    visitor::{Kept, Scene, Step, Visitor},
};
use crate::wait;

/// Visitors that take the same step at the same time while its cost is measured.
const AT_ONCE: usize = 2;
/// How often one of them takes it before another comes: few enough for every limit on clients, also where the origin takes two of
/// them for one (the rate of searches).
const REPEATS: u32 = 3;
/// How much of the processors the guide lets be used.
pub(super) const BUSY: f64 = 0.7;

/// What steps cost.
#[derive(Debug)]
pub struct Costs {
    /// In the order of [`Step::ALL`].
    pub steps: Vec<Cost>,
    /// Processors in use when nobody comes.
    pub rest: Cpu,
}

/// What one step costs.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Which one.
    pub step: Step,
    /// Seconds of processor time where the edge answers what it may.
    pub hit: Cpu,
    /// Where all that is no file comes from the origin.
    pub miss: Cpu,
    /// How long it takes, nobody else being there.
    pub takes: Duration,
}

/// The model of one deployment.
#[derive(Debug)]
pub struct Model<'a> {
    costs: &'a Costs,
    /// By step.
    hit_shares: Vec<f64>,
    think: Duration,
}

/// Servers, and the processors of each.
#[derive(Clone, Copy, Debug)]
pub enum Servers {
    /// One for everything.
    One { cores: u32 },
    /// One for the edge and the database, and three for an instance of the origin each.
    Three { cores: u32 },
}

/// Takes each step again and again, for so long each; what the programs used meanwhile is what it costs.
///
/// `few` is a scene with so few products that caches soon know all of them.
///
/// # Errors
/// When an answer is not the right one.
pub async fn measure(programs: &Programs, few: &Arc<Scene>, during: Duration) -> Result<Costs> {
    let mut guide = Visitor::connect(few, next_visitor()).await.map_err(anyhow::Error::msg)?;
    for step in Step::ALL {
        check(&guide.take(step).await)?;
    }
    let kept = guide.scripts_kept();
    drop(guide);
    let before = programs.cpu();
    sleep(during).await;
    let rest = (programs.cpu() - before) / during.as_secs_f64();
    let comes = spend(programs, few, &Errand { step: None, anew: false, kept: Kept::new() }, during).await?;
    let coming = (comes.cpu - rest * comes.during) / f64::from(comes.visitors);
    let mut steps = Vec::new();
    for step in Step::ALL {
        let mut kept = if step == Step::Home { Kept::new() } else { kept.clone() };
        if step == Step::Basket {
            // The first page that asks for the categories.
            kept.retain(|path, _| !path.starts_with("/api/"));
        }
        let errand = |anew| Errand { step: Some(step), anew, kept: kept.clone() };
        // So that caches know what they may.
        spend(programs, few, &errand(false), during / 2).await?;
        let cost = |spent: &Spent| {
            // The coming belongs to the first step.
            let apart = if step == Step::Home { Cpu::default() } else { coming * f64::from(spent.visitors) };
            (spent.cpu - rest * spent.during - apart) / f64::from(spent.steps)
        };
        let hit = spend(programs, few, &errand(false), during).await?;
        let miss = spend(programs, few, &errand(true), during).await?;
        steps.push(Cost { step, hit: cost(&hit), miss: cost(&miss), takes: hit.took / hit.steps });
    }
    Ok(Costs { steps, rest })
}

/// What is repeated: a step, or the coming alone.
#[derive(Clone)]
struct Errand {
    step: Option<Step>,
    anew: bool,
    kept: Kept,
}

#[derive(Default)]
struct Spent {
    cpu: Cpu,
    /// Seconds.
    during: f64,
    visitors: u32,
    steps: u32,
    took: Duration,
}

async fn spend(programs: &Programs, scene: &Arc<Scene>, errand: &Errand, during: Duration) -> Result<Spent> {
    let (began, before) = (wait::now(), programs.cpu());
    let mut workers = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (scene, errand) = (Arc::clone(scene), errand.clone());
        workers.spawn(async move {
            let mut spent = Spent::default();
            while began.elapsed() < during {
                repeat(&scene, &errand, &mut spent).await?;
            }
            Ok::<_, anyhow::Error>(spent)
        });
    }
    let mut all = Spent::default();
    for worker in workers.join_all().await {
        let one = worker?;
        all.visitors += one.visitors;
        all.steps += one.steps;
        all.took += one.took;
    }
    Ok(Spent { cpu: programs.cpu() - before, during: began.elapsed().as_secs_f64(), ..all })
}

async fn repeat(scene: &Arc<Scene>, errand: &Errand, spent: &mut Spent) -> Result<()> {
    let visitor = Visitor::connect(scene, next_visitor()).await.map_err(anyhow::Error::msg)?;
    spent.visitors += 1;
    let Some(step) = errand.step else { return Ok(()) };
    let is_later = matches!(step, Step::Order | Step::Orders);
    let mut visitor = if is_later { visitor.signed_in() } else { visitor };
    visitor.anew = errand.anew;
    let repeats = if step == Step::Home { 1 } else { REPEATS };
    for _ in 0..repeats {
        visitor = visitor.with_kept(errand.kept.clone());
        let done = visitor.take(step).await;
        check(&done)?;
        spent.steps += 1;
        spent.took += done.took;
    }
    Ok(())
}

fn check(done: &super::visitor::Done) -> Result<()> {
    match done.asked.iter().find_map(|asked| asked.fault.as_ref()) {
        Some(fault) => bail!("{}: {fault}", done.step.name()),
        None => Ok(()),
    }
}

impl<'a> Model<'a> {
    /// With the shares of hits of this crowd.
    #[must_use]
    pub fn new(costs: &'a Costs, smallest: &Account, think: Duration) -> Self {
        let hit_shares = Step::ALL.iter().map(|step| smallest.hit_share(*step)).collect();
        Self { costs, hit_shares, think }
    }

    /// Steps a second of so many users who all buy.
    #[must_use]
    pub fn steps_per_second(&self, users: u32) -> f64 {
        f64::from(users) / self.visit_seconds(1.0) * Step::ALL.len() as f64
    }

    /// Processors in use for so many users who all buy.
    #[must_use]
    pub fn cpu(&self, users: u32) -> Cpu {
        self.costs.rest + self.visit(1.0) * (f64::from(users) / self.visit_seconds(1.0))
    }

    /// How many users there may be before some server is busier than the guide allows, if this share of the visitors buys.
    #[must_use]
    pub fn users(&self, servers: Servers, buyers: f64) -> f64 {
        let (visit, rest) = (self.visit(buyers), self.costs.rest);
        let visits = match servers {
            Servers::One { cores } => (BUSY * f64::from(cores) - rest.all()) / visit.all(),
            Servers::Three { cores } => {
                let first =
                    (BUSY * f64::from(cores) - rest.edge - rest.postgres) / (visit.edge + visit.postgres);
                let three = 3.0 * (BUSY * f64::from(cores) - rest.origin) / visit.origin;
                first.min(three)
            }
        };
        visits * self.visit_seconds(buyers)
    }

    /// The cost of a visit.
    #[must_use]
    pub fn visit(&self, buyers: f64) -> Cpu {
        let steps = self.costs.steps.iter().zip(&self.hit_shares);
        steps.fold(Cpu::default(), |sum, (cost, share)| {
            let once = cost.hit * *share + cost.miss * (1.0 - share);
            sum + once * weight(cost.step, buyers)
        })
    }

    /// How long a visit takes.
    #[must_use]
    pub fn visit_seconds(&self, buyers: f64) -> f64 {
        let steps = self.costs.steps.iter();
        steps.map(|cost| (self.think + cost.takes).as_secs_f64() * weight(cost.step, buyers)).sum()
    }

    /// The share of hits in a step.
    #[must_use]
    pub fn hit_share(&self, step: Step) -> f64 {
        Step::ALL.iter().position(|one| *one == step).map_or(0.0, |at| self.hit_shares[at])
    }
}

/// How often a visitor takes this step.
fn weight(step: Step, buyers: f64) -> f64 {
    if step.is_looking() { 1.0 } else { buyers }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each step one millisecond of the origin as a hit and three as a miss, half a millisecond of the others'.
    fn costs() -> Costs {
        let [hit, miss] = [0.001, 0.003].map(|origin| Cpu { edge: 0.000_25, origin, postgres: 0.000_25 });
        let steps =
            Step::ALL.iter().map(|step| Cost { step: *step, hit, miss, takes: Duration::ZERO }).collect();
        Costs { steps, rest: Cpu::default() }
    }

    #[test]
    fn users_follow_from_littles_law_and_the_busiest_server() {
        let costs = costs();
        let model = Model { costs: &costs, hit_shares: vec![0.5; 9], think: Duration::from_secs(5) };
        // A visit: 9 steps of 2.5 ms in 45 s. Of the step's milliseconds 2 are the origin's.
        assert!((model.cpu(1_000).all() - 0.5).abs() < 1e-9);
        assert!((model.steps_per_second(1_000) - 200.0).abs() < 1e-9);
        let one = model.users(Servers::One { cores: 2 }, 1.0);
        assert!((model.cpu(1_000).all() * one / 1_000.0 - 1.4).abs() < 1e-9, "{one}");
        // Of the three the origins are the bottleneck: 2 ms a step on three servers, against half a one on the first.
        let three = model.users(Servers::Three { cores: 2 }, 1.0);
        assert!((three / one - 3.0 * 2.5 / 2.0).abs() < 1e-9, "{three}");
    }

    #[test]
    fn who_only_looks_leaves_room_where_buying_is_dear() {
        let mut costs = costs();
        for cost in costs.steps.iter_mut().filter(|cost| !cost.step.is_looking()) {
            cost.hit.origin *= 10.0;
            cost.miss.origin *= 10.0;
        }
        let model = Model { costs: &costs, hit_shares: vec![0.5; 9], think: Duration::from_secs(5) };
        let of_buyers = |share| model.users(Servers::One { cores: 2 }, share);
        assert!(of_buyers(0.1) > of_buyers(1.0));
    }
}
