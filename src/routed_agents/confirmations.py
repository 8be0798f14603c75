"""Confirmations are messages that say nothing but yes, or go on: what they ask for was said before them."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from routed_agents.words import folded

LONGEST: Final = 40
"""Characters of the longest confirmation."""
WORDS: Final = 5
"""Words of the longest."""

_YES: Final = """
yes yeah yep yup yea y aye sure ok okay okey okie k kk alright right correct exactly absolutely definitely certainly indeed
agreed fine good great
perfect go do proceed continue next resume start begin carry confirm confirmed approve approved accept accepted affirmative keep
more
ja jo jup jawohl gerne gern weiter los klar genau passt mach machs mache machen einverstanden stimmt fortfahren weitermachen
bestätigt
oui ouais vas allez continue continuez suivant fais faites procède procédez entendu volontiers valide validé
sí dale adelante hazlo hágalo claro vale continúa continúe continuar sigue siga siguiente procede proceda confirmo listo
sim continue prossiga prossegue pode seguinte próximo faça confirmado beleza
va certo procedi procedere continua avanti prosegui confermo fallo
graag verder doorgaan prima akkoord gooi fortsätt kör gärna fortsett gjør jatka kyllä joo
tak dobrze jasne dalej kontynuuj zrób ano dobře pokračuj pokračujte
evet tamam devam olur tabii
да ага конечно давай давайте продолжай продолжайте дальше хорошо ок ладно делай сделай далее так добре продовжуй звісно
ναι συνέχισε εντάξει προχώρα
نعم أجل حسنا استمر أكمل تابع تمام موافق بله ادامه کن כן בסדר תמשיך קדימה
हाँ हां ठीक जारी आगे haan theek
vâng được tiếp ừ ya lanjut lanjutkan teruskan baik silakan ใช่ ตกลง ต่อไป ทำเลย ได้เลย
是 是的 好 好的 好吧 好啊 对 對 可以 行 嗯 继续 繼續 请继续 請繼續 下一步 下一个 没问题 沒問題 开始 開始 开始吧 同意 确认 確認
做吧
はい うん ええ お願いします お願い おねがいします 続けて 続けてください 次 次へ 了解 了解です 進めて 進めてください やって
やってください どうぞ いいです
네 예 응 그래 그래요 좋아 좋아요 계속 계속해 계속해줘 계속해주세요 다음 해줘 해주세요 진행해 진행해줘 진행해주세요 부탁해
부탁해요 부탁합니다 부탁드립니다
"""
_BESIDE: Final = """
please pls plz thanks thank you it that this so on ahead with and then now
the both all of them just by means i would like to let us lets keep going
bitte mal das es so und dann jetzt nur zu gleich in ordnung danke dank ruhig alles beide tu tue
le y moi ça cela la s il te vous plaît plait merci d accord bien sûr c est bon maintenant tout alors svp
por favor de acuerdo gracias eso lo ahora todo está bien pues
favor pode ser isso agora tudo bem está
per favore bene d accordo grazie sì si pure adesso tutto
doe maar het ga door dank je goed det tack gør takk kiitos
proszę to teraz prosím et lütfen et edin
пожалуйста это спасибо все хорошо всё будь ласка
من فضلك شكرا بकर है karo hai रखें करो बढ़ो कृपया ha
silahkan tolong đi nhé ạ ครับ ค่ะ
请 吧 谢谢 謝謝 的 ください ありがとう 감사합니다
"""
_APART: Final = re.compile(r"[\W_]+")


def _set(words: str) -> frozenset[str]:
    return frozenset(_APART.sub(" ", folded(words)).split())


YES: Final = _set(_YES)
"""Words that say yes, or go on; one of them has to be there."""
BESIDE: Final = _set(_BESIDE)
"""Words that may stand beside them."""


@lru_cache(maxsize=256)
def is_confirmation(text: str) -> bool:
    """Whether a message has no request of its own: it says yes, or to go on, in a few words, or has no word at all.

    >>> is_confirmation("Yes, please do it!"), is_confirmation("はい、お願いします"), is_confirmation("Yes, but in French")
    (True, True, False)
    """
    if len(text) > LONGEST:
        return False
    words = _APART.sub(" ", folded(text)).split()
    if not words:
        return True
    return len(words) <= WORDS and not YES.isdisjoint(words) and all(word in YES or word in BESIDE for word in words)
