//! How whoever wants to know follows what happens in a cluster.

use tokio::sync::broadcast;

use crate::event::Event;

/// A stream of events.
#[derive(Debug)]
pub struct Events {
    /// None: the cluster was down when this was asked for.
    pub(super) receiver: Option<broadcast::Receiver<Event>>,
}

impl Events {
    /// The next event; none when the cluster is shut down or gone. Who takes them too slowly is told with
    /// [`Event::EventsMissed`] how many are gone.
    pub async fn recv(&mut self) -> Option<Event> {
        match self.receiver.as_mut()?.recv().await {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Lagged(count)) => Some(Event::EventsMissed { count }),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_is_slow_is_told_what_is_gone() {
        let (sender, receiver) = broadcast::channel(2);
        let mut events = Events { receiver: Some(receiver) };
        let odd = |instance| Event::AnomalySeen { instance, what: "odd".into() };
        for instance in 0..5 {
            sender.send(odd(instance)).unwrap();
        }
        drop(sender);
        assert_eq!(events.recv().await, Some(Event::EventsMissed { count: 3 }));
        assert_eq!([events.recv().await, events.recv().await], [Some(odd(3)), Some(odd(4))]);
        assert_eq!(events.recv().await, None);
    }
}
